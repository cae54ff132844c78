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
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// brokenStore is a store that fails.
type brokenStore struct {
	content.Store
	why error
}

func (b brokenStore) ReaderAt(context.Context, ocispec.Descriptor) (content.ReaderAt, error) {
	return nil, b.why
}

// brokenLeases fail.
type brokenLeases struct {
	leases.Manager
	why error
}

func (b brokenLeases) Create(context.Context, ...leases.Opt) (leases.Lease, error) {
	return leases.Lease{}, b.why
}

// counting is a context whose log counts, and what it has.
func counting(t *testing.T) (context.Context, *logtest.Hook) {
	t.Helper()
	logger, hook := logtest.NewNullLogger()
	logger.SetLevel(logrus.WarnLevel)
	return log.WithLogger(namespaces.WithNamespace(t.Context(), "test"), logrus.NewEntry(logger)), hook
}

func serviceWith(t *testing.T, why error) (*Service, []mount.Mount) {
	t.Helper()
	base, err := layout.ParseBase("tank/z")
	require.NoError(t, err)
	s := New(base, refusing{why: zfs.ErrBusy}, Contents{Store: brokenStore{why: why}, Leases: brokenLeases{why: why}, Setting: "containerd_address /run/x.sock"}, &smallPool{})
	return s, []mount.Mount{{Type: "zfs", Source: base.Clone("web", layout.NewID())}}
}

// containerd asks its next differ where its store is not to be reached, or is that of
// another containerd; the message names what is to be set, and the log has it once.
func TestAStoreThatIsNotContainerdsPassesOn(t *testing.T) {
	t.Parallel()
	for _, why := range []error{
		fmt.Errorf("dial unix /run/x.sock: connect: no such file or directory: %w", errdefs.ErrUnavailable),
		fmt.Errorf("content digest sha256:1: %w", errdefs.ErrNotFound),
	} {
		ctx, hook := counting(t)
		s, mounts := serviceWith(t, why)
		for range 3 {
			_, err := s.Apply(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, mounts)
			require.ErrorIs(t, err, errdefs.ErrNotImplemented)
			assert.NotErrorIs(t, err, errdefs.ErrUnavailable, "one kind, or gRPC chooses")
			assert.NotErrorIs(t, err, errdefs.ErrNotFound)
			assert.ErrorContains(t, err, "set containerd_address /run/x.sock")
			assert.ErrorContains(t, err, why.Error())
		}
		assert.Len(t, hook.AllEntries(), 1)
	}
}

// The store is used again, and is lost again: that is logged again.
func TestAStoreThatComesAndGoes(t *testing.T) {
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

// What is wrong with a layer is not for the next differ to try.
func TestOtherErrorsOfAStoreStay(t *testing.T) {
	t.Parallel()
	for _, why := range []error{errdefs.ErrPermissionDenied, errdefs.ErrDataLoss, context.Canceled} {
		ctx, hook := counting(t)
		s, mounts := serviceWith(t, why)
		_, err := s.Apply(ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, mounts)
		require.ErrorIs(t, err, why)
		assert.NotErrorIs(t, err, errdefs.ErrNotImplemented)
		assert.Empty(t, hook.AllEntries())
	}
	s, _ := serviceWith(t, nil)
	lost := storeError(errdefs.ErrUnavailable) // behind the first byte
	assert.Equal(t, lost, s.fallBack(t.Context(), lost))
}

// A layer that would be made of a snapshot goes to the next differ too: nothing was
// written of it.
func TestALayerWithoutAPlaceIsPassedOn(t *testing.T) {
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
