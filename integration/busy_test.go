package integration

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/tied"
)

// eventually waits for something that the system does by itself.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, harness.Patience, 200*time.Millisecond, what)
}

// A process has a container's root mounted in a mount namespace of its own, where
// no other process sees it. The container is removed: that succeeds, the log names the
// process and its namespace, and when it has ended the space comes back without
// another garbage collection.
func TestBusyDatasetNamesItsHolderAndIsDestroyedAfterIt(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	sn := d.Snapshotter(t)
	mounts, err := sn.Prepare(ctx, "web", "")
	require.NoError(t, err)
	runtime := strings.TrimPrefix(base.Source(t, mounts), base.String())

	dir := t.TempDir()
	require.NoError(t, mount.All(mounts, dir))
	// Its namespace has copies of the mounts of other tests, whose datasets would be busy too.
	const keepOne = `awk -v keep="$0" '/ - zfs / && $5 != keep { print $5 }' /proc/self/mountinfo |
		while read -r place; do umount -l "$place"; done; echo ready; exec sleep infinity`
	holder := exec.Command("sh", "-c", keepOne, dir)
	holder.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, tied.Start(holder))
	end := func() { _ = holder.Process.Kill(); _ = holder.Wait() }
	defer end()
	_, err = io.ReadFull(out, make([]byte, len("ready")))
	require.NoError(t, err)
	require.NoError(t, mount.UnmountAll(dir, 0))
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", holder.Process.Pid))
	require.NoError(t, err)

	require.NoError(t, sn.Remove(ctx, "web"))
	require.NoError(t, sn.Cleanup(ctx), "busy is no error")
	assert.Contains(t, base.Names(t), runtime)
	says := fmt.Sprintf("mounted at %s by sleep (pid %d, %s)", dir, holder.Process.Pid, namespace)
	eventually(t, "the log names the holder", func() bool { return strings.Contains(d.Log.String(), says) })
	assert.Contains(t, d.Log.String(), fmt.Sprintf("nsenter -t %d -m umount", holder.Process.Pid))

	end()
	eventually(t, "the runtime goes by itself", func() bool {
		return strings.Count(d.Log.String(), "destroyed unused datasets") > 0
	})
	assert.NotContains(t, base.Names(t), runtime)
	assert.Equal(t, 1, strings.Count(d.Log.String(), says), "it was said once")
}
