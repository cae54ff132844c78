package diff

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// busy returns a pool in which nothing can be mounted.
func busy(t *testing.T) *zfsfake.Pool {
	t.Helper()
	p := zfsfake.New(t)
	p.FailAt(zfsfake.Before(zfsfake.AttachWritable), zfsfake.Refuse(zfs.ErrBusy), zfsfake.Optional())
	return p
}

// If ZFS cannot list the changed objects, everything is compared, and the sides count
// as unrelated.
func TestEverythingIsComparedWithoutChangedObjects(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{zfs.ErrInvalid, zfs.ErrUnavailable, errors.New("another error")} {
		p := zfsfake.New(t)
		p.FailAt(zfsfake.Before(zfsfake.ChangedObjects), zfsfake.Return(cause))
		h, err := (&Service{pool: p}).hint(t.Context(), &tree{}, &tree{})
		require.NoError(t, err)
		assert.False(t, h.known || h.related, cause)
		assert.True(t, h.paths.all, cause)
	}
}

// A complete layer is not dropped because a snapshot cannot be closed. If the layer
// failed, both errors are returned.
func TestCloseErrorDoesNotFailACompleteLayer(t *testing.T) {
	t.Parallel()
	closed := func() func(error) error {
		f, err := os.Create(filepath.Join(t.TempDir(), "root"))
		require.NoError(t, err)
		require.NoError(t, f.Close())
		return (&pair{upper: &side{tree: tree{root: f, name: "tank/a@b"}}}).closeInBackground(t.Context())
	}
	require.NoError(t, closed()(nil))
	err := closed()(io.ErrNoProgress)
	require.ErrorIs(t, err, io.ErrNoProgress)
	require.ErrorIs(t, err, os.ErrClosed)
}

// silent is a store whose reads return only when their context ends.
type silent struct {
	content.Store
	ctx context.Context
}

func (silent) ReaderAt(ctx context.Context, _ ocispec.Descriptor) (content.ReaderAt, error) {
	return silent{ctx: ctx}, nil
}

func (s silent) ReadAt([]byte, int64) (int, error) {
	<-s.ctx.Done()
	return 0, context.Cause(s.ctx)
}

func (silent) Size() int64  { return 1 << 20 }
func (silent) Close() error { return nil }

// An Apply that failed for another reason does not wait for a store that has stalled.
func TestFailedApplyDoesNotWaitForTheStore(t *testing.T) {
	t.Parallel()
	s := &Service{pool: busy(t), contents: Contents{Store: silent{}}}
	for mediaType, want := range map[string]error{
		ocispec.MediaTypeImageLayer: zfs.ErrBusy,
		"text/plain":                errdefs.ErrNotImplemented,
	} {
		failed := make(chan error, 1)
		go func() {
			_, err := s.apply(t.Context(), ocispec.Descriptor{MediaType: mediaType}, "tank/a", diff.ApplyConfig{})
			failed <- err
		}()
		select {
		case err := <-failed:
			require.ErrorIs(t, err, want)
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: still waiting", mediaType)
		}
	}
}
