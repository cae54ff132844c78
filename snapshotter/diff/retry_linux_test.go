package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// smallPool is a pool with its snapshotter that returns a given result for each
// attempt to write: an error, or a directory for nil.
type smallPool struct {
	Pool
	dir       string
	attempts  []error  // their results, in turn
	written   []string // the runtimes that were written to
	filled    []string // the runtimes that a layer was unpacked into completely, and the layers
	renewed   []string
	discarded []string
}

func (p *smallPool) AttachWritable(_ context.Context, runtime string) (*os.File, error) {
	err := p.attempts[len(p.written)%len(p.attempts)]
	p.written = append(p.written, runtime)
	if err != nil {
		return nil, err
	}
	return os.Open(p.dir)
}

func (p *smallPool) NamespaceOf(string) string    { return "test" }
func (p *smallPool) HeldAt(string) (string, bool) { return "", false }
func (p *smallPool) Begin(context.Context) func() { return func() {} }
func (p *smallPool) Fill(runtime string) func(diffID, blob digest.Digest) {
	return func(diffID, blob digest.Digest) {
		p.filled = append(p.filled, fmt.Sprintf("%s %s %s", runtime, diffID, blob))
	}
}
func (p *smallPool) StandIn(string) (diffID, blob digest.Digest, ok bool) { return "", "", false }
func (p *smallPool) Recognize(context.Context, string, digest.Digest, digest.Digest) error {
	return errdefs.ErrNotImplemented
}
func (p *smallPool) Renew(_ context.Context, runtime string, _ error) (fresh, made string, err error) {
	p.renewed = append(p.renewed, runtime)
	return runtime + "-fresh", "1 template was evicted", nil
}
func (p *smallPool) Discard(_ context.Context, runtime string) error {
	p.discarded = append(p.discarded, runtime)
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
		results   []error
		readable  int
		want      error
		message   string
		attempts  int
		renewed   bool
		discarded bool
	}{
		"it fits":                         {[]error{nil}, 9, nil, "", 1, false, false},
		"it fits at the second attempt":   {[]error{noSpace, nil}, 9, nil, "", 2, true, false},
		"a full quota, then it fits":      {[]error{quota, nil}, 9, nil, "", 2, true, false},
		"it never fits":                   {[]error{noSpace}, 9, errdefs.ErrResourceExhausted, "1 template was evicted", 2, true, true},
		"a full pool, then another error": {[]error{noSpace, busy}, 9, errdefs.ErrFailedPrecondition, "busy", 2, true, true},
		"another error":                   {[]error{busy, nil}, 9, errdefs.ErrFailedPrecondition, "busy", 1, false, false},
		"the layer cannot be read again":  {[]error{noSpace, nil}, 1, errdefs.ErrResourceExhausted, "cannot be read again", 1, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &smallPool{dir: t.TempDir(), attempts: c.results}
			s, desc, mounts := serviceOn(t, p, c.readable)
			applied, err := s.Apply(t.Context(), desc, mounts)
			if c.want == nil {
				require.NoError(t, err)
				assert.Equal(t, desc.Digest, applied.Digest)
				assert.FileExists(t, filepath.Join(p.dir, "file"))
			} else {
				require.ErrorIs(t, err, c.want)
				assert.ErrorContains(t, err, c.message)
			}
			want := []string{mounts[0].Source, mounts[0].Source + "-fresh"}[:c.attempts]
			assert.Equal(t, want, p.written)
			var filled []string
			if c.want == nil {
				filled = []string{fmt.Sprintf("%s %s %s", want[c.attempts-1], desc.Digest, desc.Digest)}
			}
			assert.Equal(t, filled, p.filled, "only complete layers")
			assert.Equal(t, c.renewed, len(p.renewed) == 1, "%q", p.renewed)
			assert.Equal(t, c.discarded, len(p.discarded) == 1, "%q", p.discarded)
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
		results := make([]error, every)
		results[every-1] = noSpace
		p := &smallPool{dir: t.TempDir(), attempts: results}
		s, desc, mounts := serviceOn(t, p, 1000)
		const layers = 20
		failed := 0
		for range layers {
			_, err := s.Apply(t.Context(), desc, mounts)
			if err != nil {
				require.ErrorIs(t, err, errdefs.ErrResourceExhausted)
				failed++
			}
		}
		if every == 1 {
			assert.Equal(t, layers, failed)
			assert.Len(t, p.written, 2*layers)
			assert.Len(t, p.discarded, layers)
			continue
		}
		assert.Zero(t, failed, "every %d", every)
		assert.Len(t, p.written, layers+len(p.renewed))
		assert.NotEmpty(t, p.renewed)
		assert.Empty(t, p.discarded)
	}
}

func serviceOn(t *testing.T, p *smallPool, readable int) (*Service, ocispec.Descriptor, []mount.Mount) {
	t.Helper()
	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	layer := layerWith(t, tar.Header{Name: "file", Typeflag: tar.TypeReg})
	s := New(base, p, Contents{Store: &onceStore{layer: layer, left: readable}}, p)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Size: int64(len(layer)), Digest: digest.FromBytes(layer)}
	return s, desc, []mount.Mount{{Type: "zfs", Source: base.Clone("extract", layout.NewID())}}
}
