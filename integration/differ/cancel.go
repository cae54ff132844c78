package differ

import (
	"context"
	"io"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	containerdiff "github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// CancelTime is how long a comparison may continue after its caller has gone. An idle machine
// needs a second at most. To the end of the comparison it would be minutes.
const CancelTime = 20 * time.Second

// RequireCancellable asserts that a comparison ends if it is cancelled, at several moments.
// On a fast machine it may have succeeded before the later ones.
func (d *Rig) RequireCancellable(t testing.TB, what string, lower, upper []mount.Mount, media string) {
	t.Helper()
	kept, err := d.Contents.Leases.List(d.Context)
	require.NoError(t, err)
	whole := len(kept)
	for i, after := range []time.Duration{0, 50 * time.Millisecond, 200 * time.Millisecond, 800 * time.Millisecond} {
		took, err := d.cancelled(lower, upper, media, after)
		if i > 1 && err == nil {
			whole++
			continue
		}
		require.ErrorIs(t, err, context.Canceled, what)
		t.Logf("%s, cancelled after %s: ended %s later", what, after, took)
		assert.Less(t, took, CancelTime, "%s, cancelled after %s", what, after)
		d.WaitUntilReleased(t, whole)
		d.RequireNothingPending(t, whole)
	}
}

// cancelled begins a comparison, cancels it, and returns how long it took to end after that.
func (d *Rig) cancelled(lower, upper []mount.Mount, media string, after time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithCancel(d.Context)
	defer cancel()
	var at atomic.Int64
	time.AfterFunc(after, func() { at.Store(time.Now().UnixNano()); cancel() })
	_, err := d.Compare(ctx, lower, upper, containerdiff.WithMediaType(media))
	return time.Since(time.Unix(0, at.Load())), err
}

// WaitUntilReleased waits until no upload and only kept leases are left: a cancelled
// comparison releases the others a moment later.
func (d *Rig) WaitUntilReleased(t testing.TB, kept int) {
	t.Helper()
	require.Eventually(t, func() bool {
		uploads, err := d.Contents.Store.ListStatuses(d.Context)
		require.NoError(t, err)
		list, err := d.Contents.Leases.List(d.Context)
		require.NoError(t, err)
		return len(uploads) == 0 && len(list) == kept
	}, 10*time.Second, 10*time.Millisecond)
}

// KillComparison kills a process during a comparison, and asserts that the snapshot of the
// comparison is left.
func (d *Rig) KillComparison(t testing.TB, runtime string) {
	t.Helper()
	cmd := exec.Command(harness.Binary(t, "zfstpl"), "diff", "--dataset", d.Base.String(), "--format", "tar", runtime)
	out, err := cmd.StdoutPipe() // is read in part, so that the comparison does not end
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, 1024))
	require.NoError(t, err)
	require.Equal(t, 1, d.CountSnapshots(t))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Equal(t, 1, d.CountSnapshots(t), "it is left")
}

// CountSnapshots counts the snapshots of comparisons.
func (d *Rig) CountSnapshots(t testing.TB) (n int) {
	t.Helper()
	for _, s := range d.Base.List(t) {
		for _, short := range s.Snapshots {
			if strings.HasPrefix(short, zfs.TemporaryPrefix) {
				n++
			}
		}
	}
	return n
}
