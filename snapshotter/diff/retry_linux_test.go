package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// extractions is a snapshotter whose runtimes are extractions. It is a double of
// snapshotter.Snapshotter and not a pool.
type extractions struct {
	filled    []string // the runtimes that a layer was unpacked into completely, and the layers
	renewed   []string
	discarded []string
}

const fresh = "-fresh" // the end of the name of a runtime that Renew created

func (x *extractions) NamespaceOf(string) string    { return "test" }
func (x *extractions) HeldAt(string) (string, bool) { return "", false }
func (x *extractions) Begin(context.Context) func() { return func() {} }
func (x *extractions) Fill(runtime string) func(diffID, blob digest.Digest) {
	return func(diffID, blob digest.Digest) {
		x.filled = append(x.filled, fmt.Sprintf("%s %s %s", runtime, diffID, blob))
	}
}
func (x *extractions) IsExtraction(string) bool                             { return false }
func (x *extractions) StandIn(string) (diffID, blob digest.Digest, ok bool) { return "", "", false }
func (x *extractions) Recognize(context.Context, string, digest.Digest, digest.Digest) error {
	return errdefs.ErrNotImplemented
}
func (x *extractions) Renew(_ context.Context, runtime string, _ error) (name, made string, err error) {
	x.renewed = append(x.renewed, runtime)
	return runtime + fresh, "1 template was evicted", nil
}
func (x *extractions) Discard(_ context.Context, runtime string) error {
	x.discarded = append(x.discarded, runtime)
	return nil
}

// onceStore has a layer that can be read so many times.
type onceStore struct {
	content.Store
	layer []byte
	left  int
}

type layerReader struct{ *bytes.Reader }

func (layerReader) Close() error { return nil }

func (s *onceStore) ReaderAt(context.Context, ocispec.Descriptor) (content.ReaderAt, error) {
	if s.left--; s.left < 0 {
		return nil, errdefs.ErrNotFound
	}
	return layerReader{bytes.NewReader(s.layer)}, nil
}

// A layer that fails with ENOSPC is unpacked once more, into a new runtime. After any
// other error it is not, and if the layer cannot be read again nothing is evicted for
// it.
func TestLayerThatDoesNotFitIsUnpackedOnceMore(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	noSpace := &zfs.Error{Op: "mount", Kind: zfs.ErrNoSpace}
	quota := &zfs.Error{Op: "mount", Kind: zfs.ErrQuota}
	busy := &zfs.Error{Op: "mount", Kind: zfs.ErrBusy}
	for name, c := range map[string]struct {
		first     error // of the first attempt to write
		second    error // of the second one, into a new runtime
		readable  int
		want      error
		message   string
		attempts  int
		renewed   bool
		discarded bool
	}{
		"it fits":                         {nil, nil, 9, nil, "", 1, false, false},
		"it fits at the second attempt":   {noSpace, nil, 9, nil, "", 2, true, false},
		"a full quota, then it fits":      {quota, nil, 9, nil, "", 2, true, false},
		"it never fits":                   {noSpace, noSpace, 9, errdefs.ErrResourceExhausted, "1 template was evicted", 2, true, true},
		"a full pool, then another error": {noSpace, busy, 9, errdefs.ErrFailedPrecondition, "busy", 2, true, true},
		"another error":                   {busy, nil, 9, errdefs.ErrFailedPrecondition, "busy", 1, false, false},
		"the layer cannot be read again":  {noSpace, nil, 1, errdefs.ErrResourceExhausted, "cannot be read again", 1, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApplying(t, c.readable)
			attempts := []string{a.runtime, a.runtime + fresh}
			var written []func() int
			for i, failure := range []error{c.first, c.second} {
				at := zfsfake.Before(zfsfake.AttachWritable).Of(attempts[i])
				written = append(written, a.pool.Count(at))
				if failure != nil {
					a.pool.FailAt(at, zfsfake.Return(failure))
				}
			}
			applied, err := a.apply(t)
			if c.want == nil {
				require.NoError(t, err)
				assert.Equal(t, a.desc.Digest, applied.Digest)
				assert.FileExists(t, filepath.Join(a.dir, "file"))
			} else {
				require.ErrorIs(t, err, c.want)
				assert.ErrorContains(t, err, c.message)
			}
			assert.Equal(t, 1, written[0]())
			assert.Equal(t, c.attempts-1, written[1]())
			var filled []string
			if c.want == nil {
				filled = []string{fmt.Sprintf("%s %s %s", attempts[c.attempts-1], a.desc.Digest, a.desc.Digest)}
			}
			assert.Equal(t, filled, a.snapshots.filled, "only complete layers")
			assert.Equal(t, c.renewed, len(a.snapshots.renewed) == 1, "%q", a.snapshots.renewed)
			assert.Equal(t, c.discarded, len(a.snapshots.discarded) == 1, "%q", a.snapshots.discarded)
		})
	}
}

// If every k-th attempt fails with ENOSPC, every layer is unpacked, because no layer
// meets it twice. If all attempts fail, none is made more than twice.
func TestLayersSucceedIfEveryKthAttemptFails(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	noSpace := fmt.Errorf("write: %w", &zfs.Error{Op: "mount", Kind: zfs.ErrNoSpace})
	for every := 1; every <= 5; every++ {
		a := newApplying(t, 1000)
		attempts := zfsfake.Before(zfsfake.AttachWritable)
		written := a.pool.Count(attempts)
		a.pool.FailAt(attempts, zfsfake.Return(noSpace), zfsfake.Every(every))
		const layers = 20
		failed := 0
		for range layers {
			_, err := a.apply(t)
			if err != nil {
				require.ErrorIs(t, err, errdefs.ErrResourceExhausted)
				failed++
			}
		}
		if every == 1 {
			assert.Equal(t, layers, failed)
			assert.Equal(t, 2*layers, written())
			assert.Len(t, a.snapshots.discarded, layers)
			continue
		}
		assert.Zero(t, failed, "every %d", every)
		assert.Equal(t, layers+len(a.snapshots.renewed), written())
		assert.NotEmpty(t, a.snapshots.renewed)
		assert.Empty(t, a.snapshots.discarded)
	}
}

// applying is a test of Apply that unpacks a layer into a runtime, and into a new one if
// there is a second attempt. Both are one directory.
type applying struct {
	*Service
	pool      *zfsfake.Pool
	snapshots *extractions
	runtime   string
	dir       string
	desc      ocispec.Descriptor
	mounts    []mount.Mount
}

// newApplying returns a test whose layer can be read so many times.
func newApplying(t *testing.T, readable int) *applying {
	t.Helper()
	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	layer := layerWith(t, tar.Header{Name: "file", Typeflag: tar.TypeReg})
	a := &applying{pool: zfsfake.New(t), snapshots: &extractions{}, runtime: base.Clone("extract", layout.NewID()), dir: t.TempDir()}
	for _, runtime := range []string{a.runtime, a.runtime + fresh} {
		a.pool.Edit(func(s *zfsfake.State) { s.Create(runtime, nil) })
		a.pool.EditFS(runtime, func(fs *zfsfake.FS) { fs.Dir = a.dir })
	}
	a.Service = New(base, a.pool, Contents{Store: &onceStore{layer: layer, left: readable}}, a.snapshots)
	a.desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Size: int64(len(layer)), Digest: digest.FromBytes(layer)}
	a.mounts = []mount.Mount{{Type: "zfs", Source: a.runtime}}
	return a
}

func (a *applying) apply(t *testing.T, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	t.Helper()
	return a.Apply(t.Context(), a.desc, a.mounts, opts...)
}
