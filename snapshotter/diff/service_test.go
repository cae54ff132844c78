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
)

// refusing is a pool that refuses everything for one reason.
type refusing struct {
	Pool
	why error
}

func (r refusing) ChangedObjects(context.Context, string, string) ([]zfs.ObjectRange, error) {
	return nil, r.why
}

func (r refusing) AttachWritable(context.Context, string) (*os.File, error) { return nil, r.why }

// Whatever ZFS says instead of where to look: then it is looked everywhere, and
// neither side is held to have come of the other.
func TestWhereZFSDoesNotTell(t *testing.T) {
	t.Parallel()
	for _, why := range []error{zfs.ErrInvalid, zfs.ErrUnavailable, errors.New("else")} {
		h, err := (&Service{pool: refusing{why: why}}).hint(t.Context(), &tree{}, &tree{})
		require.NoError(t, err)
		assert.False(t, h.known || h.related, why)
		assert.True(t, h.paths.all, why)
	}
}

// A layer that is whole is not thrown away for a snapshot that cannot be; of one
// that failed both is told.
func TestASideThatCannotBeClosed(t *testing.T) {
	t.Parallel()
	closeInBackground := func() func(error) error {
		f, err := os.Create(filepath.Join(t.TempDir(), "root"))
		require.NoError(t, err)
		require.NoError(t, f.Close())
		return (&pair{upper: &side{tree: tree{root: f, name: "tank/a@b"}}}).closeInBackground(t.Context())
	}
	require.NoError(t, closeInBackground()(nil))
	err := closeInBackground()(io.ErrNoProgress)
	require.ErrorIs(t, err, io.ErrNoProgress)
	require.ErrorIs(t, err, os.ErrClosed)
}

// silent is a store that answers only that its caller has given up.
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

// What has failed for another reason does not wait for a store that is silent.
func TestAFailedApplyDoesNotWaitForTheStore(t *testing.T) {
	t.Parallel()
	s := &Service{pool: refusing{why: zfs.ErrBusy}, contents: Contents{Store: silent{}}}
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
			t.Fatalf("%s: it waits still", mediaType)
		}
	}
}
