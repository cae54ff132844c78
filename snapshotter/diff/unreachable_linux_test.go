package diff

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// brokenStore fails every read with err.
type brokenStore struct {
	content.Store
	err error
}

func (b brokenStore) ReaderAt(context.Context, ocispec.Descriptor) (content.ReaderAt, error) {
	return nil, b.err
}

// brokenLeases fails to create leases with err.
type brokenLeases struct {
	leases.Manager
	err error
}

func (b brokenLeases) Create(context.Context, ...leases.Opt) (leases.Lease, error) {
	return leases.Lease{}, b.err
}

// counting returns a context whose log is captured by a hook.
func counting(t *testing.T) (context.Context, *logtest.Hook) {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.WarnLevel)
	return log.WithLogger(namespaces.WithNamespace(t.Context(), "test"), logrus.NewEntry(logger)), hook
}

func serviceWith(t *testing.T, err error) (*Service, []mount.Mount) {
	t.Helper()
	base, parseErr := layout.ParseBase("tank/z")
	require.NoError(t, parseErr)
	s := New(base, busy(t), Contents{Store: brokenStore{err: err}, Leases: brokenLeases{err: err}, Setting: "containerd_address /run/x.sock"}, &extractions{})
	return s, []mount.Mount{{Type: "zfs", Source: base.Clone("web", layout.NewID())}}
}

// If the store cannot be reached or belongs to another containerd, containerd asks its
// next differ. The message names the setting, and the log has it once.
func TestUnreachableStoreFallsBackToTheNextDiffer(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{
		fmt.Errorf("dial unix /run/x.sock: connect: no such file or directory: %w", errdefs.ErrUnavailable),
		fmt.Errorf("content digest sha256:1: %w", errdefs.ErrNotFound),
	} {
		ctx, hook := counting(t)
		s, mounts := serviceWith(t, cause)
		for range 3 {
			_, err := s.Apply(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, mounts)
			require.ErrorIs(t, err, errdefs.ErrNotImplemented)
			assert.NotErrorIs(t, err, errdefs.ErrUnavailable, "only one kind, because gRPC would choose between two")
			assert.NotErrorIs(t, err, errdefs.ErrNotFound)
			assert.ErrorContains(t, err, "set containerd_address /run/x.sock")
			assert.ErrorContains(t, err, cause.Error())
		}
		assert.Len(t, hook.AllEntries(), 1)
	}
}

// If the store was used again and then fails again, that is logged again.
func TestUnreachableStoreIsLoggedAgainAfterUse(t *testing.T) {
	t.Parallel()
	ctx, hook := counting(t)
	s, mounts := serviceWith(t, errdefs.ErrUnavailable)
	for i := range 2 {
		_, err := s.Apply(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, mounts)
		require.ErrorIs(t, err, errdefs.ErrNotImplemented)
		require.NoError(t, s.fallBack(ctx, nil))
		assert.Len(t, hook.AllEntries(), i+1)
	}
}

// Any other error of the store is returned: the next differ must not try.
func TestOtherStoreErrorsDoNotFallBack(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{errdefs.ErrPermissionDenied, errdefs.ErrDataLoss, context.Canceled} {
		ctx, hook := counting(t)
		s, mounts := serviceWith(t, cause)
		_, err := s.Apply(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, mounts)
		require.ErrorIs(t, err, cause)
		assert.NotErrorIs(t, err, errdefs.ErrNotImplemented)
		assert.Empty(t, hook.AllEntries())
	}
	s, _ := serviceWith(t, nil)
	lost := storeError(errdefs.ErrUnavailable) // after the first byte
	assert.Equal(t, lost, s.fallBack(t.Context(), lost))
}

// Compare falls back too if the store cannot be reached: nothing was written.
func TestCompareFallsBackToTheNextDiffer(t *testing.T) {
	t.Parallel()
	ctx, hook := counting(t)
	s, _ := serviceWith(t, fmt.Errorf("dial unix: %w", errdefs.ErrUnavailable))
	_, err := s.store(ctx, diff.Config{MediaType: ocispec.MediaTypeImageLayer}, compressors[ocispec.MediaTypeImageLayer], func(w io.Writer, _ *current) error {
		for {
			if _, err := w.Write([]byte("begun")); err != nil {
				return err
			}
		}
	})
	err = s.fallBack(ctx, err)
	require.ErrorIs(t, err, errdefs.ErrNotImplemented)
	assert.NotErrorIs(t, err, errdefs.ErrUnavailable)
	assert.ErrorContains(t, err, "set containerd_address /run/x.sock")
	assert.Len(t, hook.AllEntries(), 1)
}
