package plugin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// A daemon that starts while another process only cleans up stops that cleanup; a second
// cleanup does not.
func TestCleanupYieldsToDaemon(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	root := t.TempDir()
	cleaner := exec.Command("sh", "-ec", `exec 9>"$0"; flock -x 9; echo "zfstpl, process $$, `+purposeCleanup+`" > "$0"; exec sleep 1000`, filepath.Join(root, lockName))
	require.NoError(t, cleaner.Start())
	t.Cleanup(func() { _ = cleaner.Process.Kill() }) // it has ended unless the test fails
	require.Eventually(t, func() bool {
		l := &baseLock{}
		if l.file, err = os.Open(filepath.Join(root, lockName)); err != nil {
			return false
		}
		defer l.file.Close()
		_, pid := l.readOwner()
		return pid != 0
	}, 10*time.Second, 10*time.Millisecond)
	_, err = lockBase(t.Context(), rootAt(t, root), base, purposeCleanup)
	var inUse *InUseError
	require.ErrorAs(t, err, &inUse)
	assert.Empty(t, inUse.Address(), "a cleanup serves no socket")
	l, err := lockBase(t.Context(), rootAt(t, root), base, "serving /run/x.sock")
	require.NoError(t, err)
	var exit *exec.ExitError
	require.ErrorAs(t, cleaner.Wait(), &exit)
	assert.Equal(t, syscall.SIGTERM, exit.Sys().(syscall.WaitStatus).Signal())
	require.NoError(t, l.file.Close())
}

// Only a process that has the lock and cleans up gets a signal.
func TestStopOwnerSignalsOnlyACleanup(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	for what, c := range map[string]struct {
		purpose string
		locked  bool
		owner   bool // the process has the lock's file open
		want    bool
		says    string
	}{
		"a cleanup":                      {purposeCleanup, true, true, true, ""},
		"a daemon":                       {"serving /run/x.sock", true, true, false, "tank/zfstpl is in use by zfstpl, process"},
		"a process with a reused PID":    {purposeCleanup, false, false, false, ""},
		"a PID in another PID namespace": {purposeCleanup, true, false, false, "stop it where it runs"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			l, err := lockBase(t.Context(), rootAt(t, root), base, c.purpose)
			require.NoError(t, err)
			victim := exec.Command("sleep", "1000")
			if c.owner {
				victim.ExtraFiles = []*os.File{l.file}
			}
			require.NoError(t, victim.Start())
			require.NoError(t, l.file.Truncate(0))
			_, err = fmt.Fprintf(l.file, "zfstpl, process %d, %s\n", victim.Process.Pid, c.purpose)
			require.NoError(t, err)
			if !c.locked {
				require.NoError(t, l.file.Close())
				waitUnlocked(t, root)
			}
			was, err := stopOwner(rootAt(t, root), base)
			if c.says == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.says)
			}
			assert.Equal(t, c.want, was)
			if !c.want {
				require.NoError(t, victim.Process.Kill())
			}
			_ = victim.Wait() // it fails if a signal ended the process
			signal := victim.ProcessState.Sys().(syscall.WaitStatus).Signal()
			assert.Equal(t, c.want, signal == syscall.SIGTERM, "%v", signal)
			if c.locked {
				require.NoError(t, l.file.Close())
			}
		})
	}
	was, err := stopOwner(rootAt(t, t.TempDir()), base)
	require.NoError(t, err)
	assert.False(t, was, "the base was never opened")
}
