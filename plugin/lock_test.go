package plugin

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// Two daemons on one base would destroy each other's snapshots. The error for the second
// one names the first, whose lock stays.
func TestSecondSnapshotterIsRefused(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	root := t.TempDir()
	first, err := lockBase(t.Context(), rootAt(t, root), base, "/run/first.sock")
	require.NoError(t, err)
	for range 2 {
		_, err = lockBase(t.Context(), rootAt(t, root), base, "/run/second.sock")
		require.ErrorContains(t, err, "tank/zfstpl is in use")
		assert.ErrorContains(t, err, "/run/first.sock")
		assert.ErrorContains(t, err, strconv.Itoa(os.Getpid()))
		assert.NotContains(t, err.Error(), "\n", "one line")
	}
	require.NoError(t, first.file.Close())
	waitUnlocked(t, root)
	second, err := lockBase(t.Context(), rootAt(t, root), base, "/run/second.sock")
	require.NoError(t, err, "the lock was released")
	_, err = lockBase(t.Context(), rootAt(t, root), base, "/run/third.sock")
	assert.ErrorContains(t, err, "/run/second.sock")
	assert.NotContains(t, err.Error(), "/run/first.sock", "nothing of the former holder")
	require.NoError(t, second.file.Close())

	info, err := os.Stat(filepath.Join(root, lockName))
	require.NoError(t, err)
	assert.Zero(t, info.Mode().Perm()&0o077)
	other, err := lockBase(t.Context(), rootAt(t, t.TempDir()), base, "/run/x.sock")
	require.NoError(t, err, "another root")
	require.NoError(t, other.file.Close())
}

// waitUnlocked waits until no process has the lock of a base. A process that a parallel test
// starts has a copy of every descriptor, and with it the lock, until it executes its program.
func waitUnlocked(t *testing.T, root string) {
	t.Helper()
	file, err := os.Open(filepath.Join(root, lockName))
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, unix.Flock(int(file.Fd()), unix.LOCK_EX))
	require.NoError(t, unix.Flock(int(file.Fd()), unix.LOCK_UN)) // of every copy
}

// The first daemon has locked the base and not written its line yet: the second is
// refused all the same.
func TestLockHoldsWithoutAnOwnerLine(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	root := t.TempDir()
	first, err := lockBase(t.Context(), rootAt(t, root), base, "/run/first.sock")
	require.NoError(t, err)
	require.NoError(t, first.file.Truncate(0))
	_, err = lockBase(t.Context(), rootAt(t, root), base, "/run/second.sock")
	assert.ErrorContains(t, err, "another process")
	require.NoError(t, first.file.Close())

	gone := filepath.Join(root, "none")
	require.NoError(t, os.Mkdir(gone, 0o700))
	removed := rootAt(t, gone)
	require.NoError(t, os.Remove(gone))
	_, err = lockBase(t.Context(), removed, base, "/run/x.sock")
	assert.ErrorContains(t, err, "tank/zfstpl")
	require.NoError(t, os.Mkdir(filepath.Join(root, "dir"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(root, "dir", lockName), 0o700))
	_, err = lockBase(t.Context(), rootAt(t, filepath.Join(root, "dir")), base, "/run/x.sock")
	assert.Error(t, err)
}

// deadProcess returns the PID of a process that has ended.
func deadProcess(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	require.NoError(t, cmd.Run())
	return cmd.Process.Pid
}

// A daemon was killed, and a command that it ran still changes the pool: the next daemon
// gets the lock when that command has ended.
func TestLockOfADeadDaemonIsWaitedFor(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	root := t.TempDir()
	first, err := lockBase(t.Context(), rootAt(t, root), base, "/run/first.sock")
	require.NoError(t, err)
	line := fmt.Sprintf("containerd-zfstpl-grpc, process %d, serving /run/first.sock\n", deadProcess(t))
	require.NoError(t, first.file.Truncate(0))
	_, err = first.file.WriteAt([]byte(line), 0)
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = lockBase(ctx, rootAt(t, root), base, "/run/second.sock")
	require.ErrorIs(t, err, context.Canceled, "it waits only as long as its context")

	type outcome struct {
		lock *baseLock
		err  error
	}
	second := make(chan outcome, 1)
	dir := rootAt(t, root)
	go func() {
		l, err := lockBase(t.Context(), dir, base, "/run/second.sock")
		second <- outcome{l, err}
	}()
	select {
	case o := <-second:
		require.Fail(t, "it did not wait", "%v", o.err)
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, first.file.Close())
	o := <-second
	require.NoError(t, o.err)
	_, err = lockBase(t.Context(), rootAt(t, root), base, "/run/third.sock")
	assert.ErrorContains(t, err, "/run/second.sock", "the new owner has written its line")
	require.NoError(t, o.lock.file.Close())
}
