package plugin

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// Only a process that has the lock and is cleaning up is signalled.
func TestStopOwner(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	for what, c := range map[string]struct {
		doing  string
		locked bool
		want   bool
	}{
		"a cleanup":                   {cleaningUp, true, true},
		"a daemon":                    {"serving /run/x.sock", true, false},
		"one that died, another came": {cleaningUp, false, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			victim := exec.Command("sleep", "1000")
			require.NoError(t, victim.Start())
			root := t.TempDir()
			l, err := lockBase(t.Context(), root, base, c.doing)
			require.NoError(t, err)
			require.NoError(t, l.file.Truncate(0))
			_, err = fmt.Fprintf(l.file, "zfstpl, process %d, %s\n", victim.Process.Pid, c.doing)
			require.NoError(t, err)
			if !c.locked {
				require.NoError(t, l.release())
			}
			was, err := stopOwner(root)
			require.NoError(t, err)
			assert.Equal(t, c.want, was)
			if !c.want {
				require.NoError(t, victim.Process.Kill())
			}
			_ = victim.Wait() // by a signal: that is the answer
			signal := victim.ProcessState.Sys().(syscall.WaitStatus).Signal()
			assert.Equal(t, c.want, signal == syscall.SIGTERM, "%v", signal)
			if c.locked {
				require.NoError(t, l.release())
			}
		})
	}
	was, err := stopOwner(filepath.Join(t.TempDir(), "none"))
	require.NoError(t, err)
	assert.False(t, was, "a base that nobody ever opened")
}
