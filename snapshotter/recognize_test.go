package snapshotter

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// Recognize identifies a blob from which the template was not unpacked by its diff ID. If the
// provenance of the template is unknown, Recognize writes it.
func TestRecognizeComparesBlobWithLayer(t *testing.T) {
	t.Parallel()
	other := digest.FromString("other")
	for what, c := range map[string]struct {
		forget       bool // the provenance is unknown
		diffID, blob digest.Digest
		want         record.Provenance
		err          error
	}{
		"another compression":    {false, upper, other, record.Provenance{DiffID: upper, Blob: upperBlob}, nil},
		"another layer":          {false, lower, other, record.Provenance{DiffID: upper, Blob: upperBlob}, errdefs.ErrInvalidArgument},
		"unknown provenance":     {true, upper, other, record.Provenance{DiffID: upper, Blob: other}, nil},
		"another layer, unknown": {true, lower, other, record.Provenance{}, errdefs.ErrInvalidArgument},
		"malformed blob digest":  {true, upper, "x", record.Provenance{DiffID: upper, Blob: ""}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, fetchMode)
			a := s.unpack("default", "", lowerChain, lower, lowerBlob)
			b := s.unpack("default", a, upperChain, upper, upperBlob)
			if c.forget {
				s.pool.EditFS(s.templateOf(b), func(fs *zfsfake.FS) { delete(fs.Props, record.DiffIDProperty); delete(fs.Props, record.BlobProperty) })
				s.restart()
			}
			key := s.standIn("zoo", a, upperChain)
			err := s.sn.Recognize(s.ctx, s.dataset(key), c.diffID, c.blob)
			require.ErrorIs(t, err, c.err)
			assert.Equal(t, c.want, s.provenanceOf(b))
			err = s.sn.Commit(s.ctx, s.backend("zoo", upperChain), key, ref(upperChain))
			if c.err != nil {
				require.ErrorIs(t, err, errdefs.ErrFailedPrecondition, "no record is added to the template")
				s.remove(key)
				key = s.standIn("zoo", a, upperChain)
				err = s.sn.Commit(s.ctx, s.backend("zoo", upperChain), key, ref(upperChain))
			}
			require.NoError(t, err)
			s.requireInvariants()
		})
	}
}

// If the provenance cannot be written, Recognize returns nil.
func TestFailedWriteOfProvenanceDoesNotFailPull(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	s.pool.EditFS(s.templateOf(a), func(fs *zfsfake.FS) { delete(fs.Props, record.DiffIDProperty); delete(fs.Props, record.BlobProperty) })
	s.restart()
	key := s.standIn("zoo", "", lowerChain)
	runtime := s.dataset(key)
	end := s.pool.FailAt(zfsfake.Before(zfsfake.Set), zfsfake.Refuse(zfs.ErrNoSpace))
	require.NoError(t, s.sn.Recognize(s.ctx, runtime, lower, lowerBlob))
	end()
	assert.Empty(t, s.provenanceOf(a))
	require.NoError(t, s.sn.Recognize(s.ctx, runtime, lower, lowerBlob))
	assert.Equal(t, record.Provenance{DiffID: lower, Blob: lowerBlob}, s.provenanceOf(a))
	s.remove(key)
	require.ErrorIs(t, s.sn.Recognize(s.ctx, runtime, lower, lowerBlob), errdefs.ErrNotFound)
	_, _, ok := s.sn.StandIn(runtime)
	assert.False(t, ok)
}
