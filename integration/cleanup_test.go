package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/integration/tied"
	"github.com/zfstpl/zfstpl/plugin/control"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// markOf is what a base says about the cleanup it is owed.
func markOf(t testing.TB, base *testpool.Base) layout.CleanupMark {
	t.Helper()
	props, err := base.Client.Properties(context.Background(), base.String(), layout.CleanupProperty)
	require.NoError(t, err)
	if v := props[layout.CleanupProperty]; v.Local {
		return layout.ParseCleanupMark(v.Value)
	}
	return layout.CleanupMark{}
}

// cleanupArgs are those of 'zfstpl cleanup' for a base and a daemon that may run.
func cleanupArgs(d *harness.Daemon, more ...string) []string {
	return append([]string{"cleanup", "--dataset", d.Base.String(), "--address", d.Address}, more...)
}

// litter makes garbage, as a daemon that was killed leaves it: the base says that
// there is some, and no list exists.
func litter(t testing.TB, base *testpool.Base, n int) {
	t.Helper()
	var ops []zfs.Op
	for range n {
		run := base.Clone("litter", layout.NewID())
		ops = append(ops, zfs.Clone(base.Empty().Snapshot(), run))
		if len(ops) == 40 {
			require.NoError(t, base.Client.Apply(context.Background(), ops...))
			ops = nil
		}
	}
	ops = append(ops, zfs.Set(base.String(), layout.CleanupProperty, time.Now().UTC().Format(time.RFC3339)))
	require.NoError(t, base.Client.Apply(context.Background(), ops...))
}

// With cleanup.mode "manual" a removal is one property and nothing else, until
// a flag says otherwise. The base itself says that there is something to do, and
// a command does it without any daemon, from the list that the daemon left.
func TestCleanupWithoutADaemonUsesTheSavedList(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--cleanup-mode", "manual")
	sn := d.Snapshotter(t)
	for i := range 5 {
		key := fmt.Sprint(i)
		_, err := sn.Prepare(ctx, key, "")
		require.NoError(t, err)
		require.NoError(t, sn.Remove(ctx, key))
	}
	require.NoError(t, sn.Cleanup(ctx))
	require.Eventually(t, func() bool { return markOf(t, base).IsDue(time.Now()) }, harness.Patience, 50*time.Millisecond, "the base says so by itself")
	assert.Len(t, base.Names(t), 4+5, "containerd's own call destroys nothing")

	d.Stop(t)
	list := filepath.Join(base.Root, "cleanup.json")
	require.FileExists(t, list)
	require.NotEmpty(t, markOf(t, base).List)
	stdout, stderr, err := harness.RunCommand(t, "zfstpl", cleanupArgs(d, "--check")...)
	require.NoError(t, err, "one is owed: %s", stderr)
	assert.Empty(t, stdout+stderr)
	stdout, stderr, err = harness.RunCommand(t, "zfstpl", cleanupArgs(d, "--if-needed")...)
	require.NoError(t, err, stderr)
	assert.Empty(t, stdout, "not a word")
	assert.Len(t, base.Names(t), 4, "the base, storage, runtime and the empty template")
	assert.Equal(t, layout.CleanupMark{}, markOf(t, base))
	assert.NoFileExists(t, list)

	var exit *exec.ExitError
	stdout, stderr, err = harness.RunCommand(t, "zfstpl", cleanupArgs(d, "--check")...)
	require.ErrorAs(t, err, &exit, "none is owed")
	assert.Equal(t, 1, exit.ExitCode(), "which systemd takes for a condition that does not hold")
	assert.Empty(t, stdout+stderr)
	stdout, stderr, err = harness.RunCommand(t, "zfstpl", cleanupArgs(d, "--if-needed")...)
	require.NoError(t, err)
	assert.Empty(t, stdout+stderr)

	// Without a list it finds out what there is.
	litter(t, base, 3)
	stdout, stderr, err = harness.RunCommand(t, "zfstpl", cleanupArgs(d)...)
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, "3 datasets destroyed in ")
	assert.Len(t, base.Names(t), 4)
}

// A daemon that runs does the work, whatever its mode, and reports progress; while it
// is at it containers begin.
func TestDaemonCleansUpForTheCommandInEveryMode(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	litter(t, base, 20)
	d := harness.StartDaemon(t, base, "--cleanup-mode", "manual")
	sn := d.Snapshotter(t)
	began, over := make(chan struct{}), make(chan error, 1)
	var last snapshotter.CleanupProgress
	conn := d.Dial(t)
	go func() {
		over <- control.Clean(ctx, conn, base.String(), func(p snapshotter.CleanupProgress) {
			if last.Of == 0 {
				close(began)
			}
			last = p
		})
	}()
	<-began
	_, err := sn.Prepare(ctx, "web", "")
	require.NoError(t, err)
	require.NoError(t, <-over)
	assert.Equal(t, snapshotter.CleanupProgress{Looked: 20, Of: 20, Destroyed: 20}, last)
	assert.Len(t, base.Names(t), 4+1)
	require.NoError(t, sn.Remove(ctx, "web"))
	stdout, stderr, err := harness.RunCommand(t, "zfstpl", cleanupArgs(d)...)
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, "1 datasets destroyed in ")
	assert.Len(t, base.Names(t), 4)
	stdout, _, err = harness.RunCommand(t, "zfstpl", cleanupArgs(d, "--stop")...)
	require.NoError(t, err)
	assert.Contains(t, stdout, "no cleanup is running")
}

// The daemon that has the base does the work, wherever it serves it; one that has
// another base does nothing.
func TestCleanupByTheDaemonThatHasTheBase(t *testing.T) {
	t.Parallel()
	base, other := pool.NewBase(t), pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--cleanup-mode", "manual")
	litter(t, other, 2)
	ofOther := []string{"cleanup", "--dataset", other.String(), "--address", d.Address}
	stdout, _, err := harness.RunCommand(t, "zfstpl", append(ofOther, "--stop")...)
	require.NoError(t, err)
	assert.Contains(t, stdout, "no cleanup is running")
	stdout, stderr, err := harness.RunCommand(t, "zfstpl", ofOther...)
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, "2 datasets destroyed in ")
	assert.Len(t, other.Names(t), 4)

	sn := d.Snapshotter(t)
	_, err = sn.Prepare(t.Context(), "web", "")
	require.NoError(t, err)
	require.NoError(t, sn.Remove(t.Context(), "web"))
	require.Eventually(t, func() bool { return markOf(t, base).IsDue(time.Now()) }, harness.Patience, 50*time.Millisecond)
	atNobodys := []string{"cleanup", "--dataset", base.String(), "--address", d.Address + ".none"}
	stdout, stderr, err = harness.RunCommand(t, "zfstpl", append(atNobodys, "--stop")...)
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, "no cleanup is running")
	stdout, stderr, err = harness.RunCommand(t, "zfstpl", append(atNobodys, "--if-needed")...)
	require.NoError(t, err, stderr)
	assert.Empty(t, stdout+stderr)
	assert.Len(t, base.Names(t), 4)

	require.Eventually(t, func() bool { return markOf(t, base) == layout.CleanupMark{} }, harness.Patience, 50*time.Millisecond, "by the daemon, some time later")
	require.NoError(t, os.Rename(d.Address, d.Address+".away")) // as where it is another's mount namespace
	litter(t, base, 1)
	stdout, stderr, err = harness.RunCommand(t, "zfstpl", append(atNobodys, "--if-needed")...)
	require.Error(t, err, stdout)
	assert.Contains(t, stderr, "serving "+d.Address+", but nothing listens there")
	require.NoError(t, os.Rename(d.Address+".away", d.Address))
	require.NoError(t, control.Clean(t.Context(), d.Dial(t), base.String(), nil))
	require.NoError(t, d.Snapshotter(t).Close())
}

// A cleanup is stopped from anywhere, in a daemon or without one, loses nothing,
// and the next one does the rest.
func TestStoppedCleanupLosesNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const many = 40 // five batches
	for what, run := range map[string]func(t *testing.T, d *harness.Daemon) error{
		"in a daemon": func(t *testing.T, d *harness.Daemon) error {
			d.Start(t)
			over, conn := make(chan error, 1), d.Dial(t)
			var once sync.Once
			go func() {
				over <- control.Clean(ctx, conn, "", func(snapshotter.CleanupProgress) {
					once.Do(func() {
						_, err := control.Stop(ctx, conn, "") // with most batches still to come
						assert.NoError(t, err)
					})
				})
			}()
			err := <-over
			require.ErrorIs(t, err, errdefs.ErrAborted)
			d.Stop(t)
			return nil
		},
		"without one": func(t *testing.T, d *harness.Daemon) error {
			said, err := stoppedAlone(t, d)
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "%s", said)
			assert.Equal(t, 1, exit.ExitCode())
			assert.Contains(t, said, "interrupted: the next cleanup destroys the rest")
			return nil
		},
		"by a timer": func(t *testing.T, d *harness.Daemon) error {
			said, err := stoppedAlone(t, d, "--if-needed")
			require.NoError(t, err, "a timer is not to fail for that")
			assert.Empty(t, said)
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			base := pool.NewBase(t)
			d := harness.NewDaemon(t, base, "--cleanup-mode", "manual")
			litter(t, base, many)
			require.NoError(t, run(t, d))
			left := len(base.Names(t)) - 4
			assert.Positive(t, left, "it was stopped")
			assert.True(t, markOf(t, base).IsDue(time.Now()), "and the base says so")
			base.Check(t)
			stdout, stderr, err := harness.RunCommand(t, "zfstpl", cleanupArgs(d)...)
			require.NoError(t, err, stderr)
			assert.Contains(t, stdout, fmt.Sprintf("%d datasets destroyed in ", left))
			assert.Len(t, base.Names(t), 4)
			assert.Equal(t, layout.CleanupMark{}, markOf(t, base))
		})
	}
}

// stoppedAlone runs a cleanup without a daemon, stops it, and returns its output.
func stoppedAlone(t *testing.T, d *harness.Daemon, more ...string) (said string, err error) {
	t.Helper()
	var log harness.ProgramLog
	cmd := exec.Command(harness.Binary(t, "zfstpl"), cleanupArgs(d, more...)...)
	cmd.Stdout, cmd.Stderr = log.Output(t), log.Output(t)
	require.NoError(t, tied.Start(cmd))
	require.Eventually(t, func() bool {
		stdout, _, err := harness.RunCommand(t, "zfstpl", cleanupArgs(d, "--stop")...)
		return err == nil && strings.Contains(stdout, "the cleanup ends")
	}, harness.Patience, time.Millisecond)
	err = cmd.Wait()
	return log.String(), err
}

// In mode background garbage is destroyed some time after the last
// container began.
func TestBackgroundModeDestroysGarbageByItself(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--cleanup-mode", "background")
	sn := d.Snapshotter(t)
	_, err := sn.Prepare(ctx, "web", "")
	require.NoError(t, err)
	require.NoError(t, sn.Remove(ctx, "web"))
	require.NoError(t, sn.Cleanup(ctx))
	assert.Len(t, base.Names(t), 4+1, "not while an operation writes")
	require.Eventually(t, func() bool { return len(base.Names(t)) == 4 }, harness.Patience, 200*time.Millisecond)
	require.Eventually(t, func() bool { return markOf(t, base) == layout.CleanupMark{} }, harness.Patience, 50*time.Millisecond)
}

// A cleanup that is killed, in a daemon or alone, is one that was stopped: the process that
// comes next finds out what there is.
func TestKilledCleanupLosesNothing(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	d := harness.NewDaemon(t, base, "--cleanup-mode", "manual")
	litter(t, base, 40)
	for range 2 {
		var log harness.ProgramLog
		cmd := exec.Command(harness.Binary(t, "zfstpl"), cleanupArgs(d)...)
		cmd.Stdout, cmd.Stderr = log.Output(t), log.Output(t)
		before := len(base.Names(t))
		if before == 4 {
			break // the first was done before the kill came
		}
		require.NoError(t, tied.Start(cmd))
		require.Eventually(t, func() bool { return len(base.Names(t)) < before }, harness.Patience, time.Millisecond)
		_ = cmd.Process.Kill() // it may have ended just now
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil {
			require.ErrorAs(t, err, &exit, "%s", log.String())
		}
		base.Check(t)
	}
	require.NoError(t, errors.Join(os.WriteFile(filepath.Join(base.Root, "cleanup.json"), []byte("{"), 0o600)))
	d.Start(t)
	require.NoError(t, control.Clean(context.Background(), d.Dial(t), base.String(), nil))
	assert.Len(t, base.Names(t), 4)
	d.Stop(t)
	assert.Equal(t, layout.CleanupMark{}, markOf(t, base))
}
