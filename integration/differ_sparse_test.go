package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	containerdiff "github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter/diff"
)

// sparseFile makes a file of a size that has a few bytes at some offsets and else
// nothing.
func sparseFile(t testing.TB, name string, size int64, data ...int64) {
	t.Helper()
	f, err := os.Create(name)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(size))
	for _, at := range data {
		_, err := f.WriteAt([]byte("data"), at)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
	at := time.Unix(1_700_000_000, 0)
	require.NoError(t, os.Chtimes(name, at, at))
}

// A file of zeros that takes no space is as long in a layer as it says. One that is
// longer than Apply takes is refused at once, by its name; one that is equal on both
// sides costs nothing, however long it is.
func TestSparseFilesAreLimitedAndCostNothingIfEqual(t *testing.T) {
	t.Parallel()
	const tebibyte, size = 1 << 40, 24 * harness.MiB
	d := differ.New(t, pool.NewBase(t))
	nothing := d.View(t, "")

	_, giant := d.Prepare(t, "")
	harness.Mounted(t, giant, func(root string) {
		harness.Mkdirs(t, filepath.Join(root, "var/log"))
		sparseFile(t, filepath.Join(root, "var/log/lastlog"), 2*tebibyte, tebibyte)
	})
	for _, media := range []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd} {
		_, err := d.Compare(d.Context, nothing, giant, containerdiff.WithMediaType(media))
		require.True(t, errdefs.IsFailedPrecondition(err), "%v", err)
		for _, part := range []string{`"var/log/lastlog"`, "2199023255552 bytes", "1099511627776 bytes"} {
			require.ErrorContains(t, err, part)
		}
		d.RequireNothingPending(t, 0)
	}

	_, islands := d.Prepare(t, "")
	harness.Mounted(t, islands, func(root string) {
		sparseFile(t, filepath.Join(root, "islands"), size, 0, 5*harness.MiB-2, 17*harness.MiB, size-4)
		sparseFile(t, filepath.Join(root, "sea"), size)
	})
	layer := d.Layers(t, nothing, islands)
	harness.Mounted(t, islands, func(root string) {
		r := tar.NewReader(bytes.NewReader(layer))
		for _, name := range []string{"islands", "sea"} {
			h, err := r.Next()
			require.NoError(t, err)
			require.Equal(t, name, h.Name)
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			want, err := os.ReadFile(filepath.Join(root, name))
			require.NoError(t, err)
			assert.True(t, bytes.Equal(want, got), name)
		}
	})

	// Neither came of the other, so that all in them is compared.
	var sides [2]string
	for i := range sides {
		name := d.Template(t, "", func(root string) {
			sparseFile(t, filepath.Join(root, "same"), 1024*tebibyte, 0, 700*tebibyte)
			require.NoError(t, os.WriteFile(filepath.Join(root, "other"), []byte(strings.Repeat("x", i)), 0o644))
		})
		sides[i] = d.View(t, name)[0].Source
	}
	began := time.Now()
	names, _ := d.StreamNames(t, diff.Sides{Lower: sides[0], Upper: sides[1]})
	t.Logf("two files of a pebibyte were compared in %s", time.Since(began))
	assert.Equal(t, []string{"other"}, names)
	harness.RemoveAll(t, d.Snapshotter)
}

// blocked is a content store that takes no more after so many bytes, as one whose
// disk does not respond: nothing ends a write before the test does.
type blocked struct {
	content.Store
	left    int
	reached chan struct{} // closed when it takes no more
	end     chan struct{}
}

func (s *blocked) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := s.Store.Writer(ctx, opts...)
	return &blockedWriter{w, s}, err
}

type blockedWriter struct {
	content.Writer
	of *blocked
}

func (w *blockedWriter) Write(b []byte) (int, error) {
	if w.of.left -= len(b); w.of.left < 0 {
		close(w.of.reached)
		<-w.of.end
		return 0, errors.New("the store has stalled")
	}
	return w.Writer.Write(b)
}

// A comparison that is cancelled while the store takes no more ends all the same. Its
// snapshot is gone by then, and so are its place and its lease once the store goes on.
func TestACancelledComparisonLeavesAStoreThatStalls(t *testing.T) {
	d := differ.New(t, pool.NewBase(t))
	store := &blocked{Store: d.Contents.Store, left: harness.MiB, reached: make(chan struct{}), end: make(chan struct{})}
	service := diff.New(d.Base.Base, d.Base.Client, diff.Contents{Store: store, Leases: d.Contents.Leases}, d.Snapshotter)
	_, large := d.Prepare(t, "")
	harness.Mounted(t, large, func(root string) { sparseFile(t, filepath.Join(root, "large"), 8<<30) })
	nothing := d.View(t, "")
	ctx, cancel := context.WithCancel(d.Context)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := service.Compare(ctx, nothing, large, containerdiff.WithMediaType(ocispec.MediaTypeImageLayer))
		ended <- err
	}()
	<-store.reached
	cancel()
	began := time.Now()
	require.ErrorIs(t, <-ended, context.Canceled)
	took := time.Since(began)
	t.Logf("it ended %s later", took)
	assert.Less(t, took, differ.CancelTime)
	for _, s := range d.Base.List(t) {
		for _, short := range s.Snapshots {
			assert.NotContains(t, short, "zfstpl-diff-", s.Name)
		}
	}
	close(store.end)
	d.WaitUntilReleased(t, 0)
	d.RequireNothingPending(t, 0)
	harness.RemoveAll(t, d.Snapshotter)
}
