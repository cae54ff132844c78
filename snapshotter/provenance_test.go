package snapshotter

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/inspect/invariants"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// Two layers: their diff IDs, the digests of their blobs, and their chain IDs.
var (
	lower, upper         = digest.FromString("lower"), digest.FromString("upper")
	lowerBlob, upperBlob = digest.FromString("lower.gz"), digest.FromString("upper.gz")
	lowerChain           = layout.ChainID("", lower.String())
	upperChain           = layout.ChainID(lowerChain, upper.String())
)

// unpack prepares an extraction, unpacks a layer into it as a differ does, and commits it.
func (s *fixture) unpack(namespace, parent, chain string, diffID, blob digest.Digest) (name string) {
	s.Helper()
	key := s.backend(namespace, "extract-1-x "+chain)
	s.prepare(key, parent, ref(chain))
	filled := s.sn.Fill(s.dataset(key))
	s.write(key, diffID.String()+";")
	filled(diffID, blob)
	name = s.backend(namespace, chain)
	s.commit(name, key, ref(chain))
	return name
}

// ProvenanceOf returns the provenance of a snapshot's template. It requires that pool and
// index agree.
func (s *fixture) provenanceOf(name string) record.Provenance {
	s.Helper()
	dataset := s.templateOf(name)
	var inPool record.Provenance
	s.pool.Edit(func(state *zfsfake.State) {
		props := state.FS[dataset].Props
		inPool = record.Provenance{DiffID: digest.Digest(props["zfstpl:diff-id"]), Blob: digest.Digest(props["zfstpl:blob"])}
	})
	require.Equal(s, inPool, s.sn.index.Template(dataset).From, "the index agrees about %s", dataset)
	return inPool
}

// A commit writes the provenance of the template, which keeps it as long as it exists.
func TestCommitWritesProvenance(t *testing.T) {
	t.Parallel()
	for mode, option := range map[string]func(*fixture){"atomic": func(*fixture) {}, "in steps": inSteps, "owned": settings(ownTemplates)} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, option)
			a := s.unpack("default", "", lowerChain, lower, lowerBlob)
			b := s.unpack("default", a, upperChain, upper, upperBlob)
			for range 2 {
				assert.Equal(t, record.Provenance{DiffID: lower, Blob: lowerBlob}, s.provenanceOf(a))
				assert.Equal(t, record.Provenance{DiffID: upper, Blob: upperBlob}, s.provenanceOf(b))
				s.requireInvariants()
				s.restart()
			}
			dataset := s.templateOf(b)
			s.remove(b, a)
			s.cleanup()
			s.restart()
			assert.Equal(t, record.Provenance{DiffID: upper, Blob: upperBlob}, s.sn.index.Template(dataset).From, "the template keeps it without a record")
			entries, err := s.inspect()
			require.NoError(t, err)
			for _, e := range entries {
				if e.Dataset == dataset {
					assert.Equal(t, [2]digest.Digest{upper, upperBlob}, [2]digest.Digest{e.DiffID, e.Blob})
				}
			}
		})
	}
}

// A commit writes no provenance that is not certain.
func TestCommitWritesNoUncertainProvenance(t *testing.T) {
	t.Parallel()
	for what, fill := range map[string]func(s *fixture, runtime string){
		"nothing was unpacked":        func(*fixture, string) {},
		"a part was unpacked":         func(s *fixture, r string) { s.sn.Fill(r) },
		"a part, then the layer":      func(s *fixture, r string) { s.sn.Fill(r); s.sn.Fill(r)(lower, lowerBlob) },
		"two layers were unpacked":    func(s *fixture, r string) { s.sn.Fill(r)(lower, lowerBlob); s.sn.Fill(r)(upper, upperBlob) },
		"a layer of another chain ID": func(s *fixture, r string) { s.sn.Fill(r)(upper, lowerBlob) },
		"a malformed diff ID":         func(s *fixture, r string) { s.sn.Fill(r)("sha256:x", lowerBlob) },
		"a malformed blob digest":     func(s *fixture, r string) { s.sn.Fill(r)(lower, "\x00") },
		"into another runtime":        func(s *fixture, _ string) { s.sn.Fill("tank/z/runtime/x-0123456789abcdef")(lower, lowerBlob) },
		"into the empty template":     func(s *fixture, _ string) { s.sn.Fill(s.base.Empty().Dataset())(lower, lowerBlob) },
		"after a restart":             func(s *fixture, r string) { s.sn.Fill(r)(lower, lowerBlob); s.restart() },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			key := "default/8/extract-1-x " + lowerChain
			s.prepare(key, "", ref(lowerChain))
			fill(s, s.dataset(key))
			s.commit("default/9/"+lowerChain, key, ref(lowerChain))
			assert.Empty(t, s.provenanceOf("default/9/"+lowerChain))
			assert.Empty(t, s.sn.index.DumpTransient())
			s.requireInvariants()
		})
	}
}

// A commit writes no provenance if it is opaque or adds a record to an existing template.
func TestOnlyNewLayerGetsProvenance(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	first, second := "default/1/extract-1-x "+lowerChain, "default/2/extract-1-x "+lowerChain
	opaque := "default/3/extract-1-x " + lowerChain
	for i, key := range []string{first, second, opaque} {
		s.prepare(key, "")
		s.sn.Fill(s.dataset(key))(lower, digest.FromString(strings.Repeat("x", i)))
	}
	s.commit("default/4/"+lowerChain, first)
	s.commit("default/5/"+lowerChain, second)
	s.commit("default/6/builds-own", opaque)
	assert.Equal(t, record.Provenance{DiffID: lower, Blob: digest.FromString("")}, s.provenanceOf("default/5/"+lowerChain), "it is that of the first commit")
	assert.Empty(t, s.provenanceOf("default/6/builds-own"))

	on := s.unpack("default", "default/6/builds-own", upperChain, upper, upperBlob)
	assert.Empty(t, s.provenanceOf(on), "a parent without a chain ID")
	s.remove(on, "default/6/builds-own")
	s.requireInvariants()
}

// The filling of a runtime is dropped when its snapshot is removed or renewed.
func TestFillingIsDroppedWithRuntime(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	key := "default/8/extract-1-x " + lowerChain
	s.prepare(key, "")
	filled := s.sn.Fill(s.dataset(key))
	fresh, _, err := s.sn.Renew(s.ctx, s.dataset(key), zfs.ErrNoSpace)
	require.NoError(t, err)
	s.sn.Fill(fresh)(lower, lowerBlob)
	filled(upper, upperBlob)
	s.commit("default/9/"+lowerChain, key)
	assert.Equal(t, record.Provenance{DiffID: lower, Blob: lowerBlob}, s.provenanceOf("default/9/"+lowerChain))

	s.prepare(key, "")
	s.sn.Fill(s.dataset(key))
	s.remove(key)
	assert.Empty(t, s.sn.index.DumpTransient())
}

// Properties that contradict the name of the template are ignored and not changed.
func TestInvalidProvenanceIsIgnored(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		diffID, blob string
		want         record.Provenance
	}{
		"another layer":     {lower.String(), upperBlob.String(), record.Provenance{}},
		"malformed diff ID": {"sha256:12", upperBlob.String(), record.Provenance{}},
		"without a blob":    {upper.String(), "", record.Provenance{DiffID: upper, Blob: ""}},
		"malformed blob":    {upper.String(), "gz", record.Provenance{DiffID: upper, Blob: ""}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			a := s.unpack("default", "", lowerChain, lower, lowerBlob)
			b := s.unpack("default", a, upperChain, upper, upperBlob)
			s.pool.EditFS(s.templateOf(b), func(fs *zfsfake.FS) {
				fs.Props[record.DiffIDProperty], fs.Props[record.BlobProperty] = c.diffID, c.blob
			})
			s.restart()
			assert.Equal(t, c.want, s.sn.index.Template(s.templateOf(b)).From)
			assert.Equal(t, c.want == record.Provenance{}, strings.Contains(s.log.String(), "ignoring property") || strings.HasSuffix(c.diffID, ":12"))
			list, err := s.pool.List(s.ctx, s.base.String())
			require.NoError(t, err)
			assert.Equal(t, what == "another layer", invariants.Check(s.base, list) != nil)
		})
	}
}
