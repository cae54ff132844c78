package snapshotter

import (
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// fetchMode sets ReuseFetch.
func fetchMode(s *fixture) { settings(reuseMode(ReuseFetch))(s) }

// standIn prepares an extraction that must become a stand-in.
func (s *fixture) standIn(namespace, parent, chain string, opts ...snapshots.Opt) (key string) {
	s.Helper()
	key = s.backend(namespace, "extract-1-x "+chain)
	s.prepare(key, parent, append(opts, ref(chain))...)
	_, _, ok := s.sn.StandIn(s.dataset(key))
	require.True(s, ok, "%q is not a stand-in", key)
	return key
}

// In ReuseFetch a layer in the pool is pulled again as a stand-in: the runtime is a clone of
// the layer's own template, nothing is unpacked, and the commit adds a record to the
// template.
func TestFetchedLayerIsNotUnpacked(t *testing.T) {
	t.Parallel()
	for what, again := range map[string]func(*fixture){
		"at once":         func(*fixture) {},
		"after a cleanup": (*fixture).cleanup,
		"after a restart": (*fixture).restart,
		"after a crash":   func(s *fixture) { s.cleanup(); s.crash() },
	} {
		for mode, with := range map[string]func(*Config){
			"shared": reuseMode(ReuseFetch), "owned": func(c *Config) { c.ReuseLayers, c.OwnTemplates = ReuseFetch, true },
		} {
			t.Run(what+" "+mode, func(t *testing.T) {
				t.Parallel()
				s := newFixture(t, settings(with))
				a := s.unpack("default", "", lowerChain, lower, lowerBlob)
				b := s.unpack("default", a, upperChain, upper, upperBlob)
				before, template := s.templates(), s.templateOf(b)
				s.remove(b, a)
				again(s)

				parent := ""
				for _, l := range []struct {
					chain        string
					diffID, blob digest.Digest
				}{{lowerChain, lower, lowerBlob}, {upperChain, upper, upperBlob}} {
					key := s.standIn("default", parent, l.chain)
					again(s) // it is still a stand-in
					assert.Equal(t, parent, s.stat(key).Parent, "the parent is that of Prepare")
					usage, err := s.sn.Usage(s.ctx, key)
					require.NoError(t, err)
					assert.Zero(t, usage, "nothing was written")
					diffID, blob, ok := s.sn.StandIn(s.dataset(key))
					assert.True(t, ok)
					assert.Equal(t, [2]digest.Digest{l.diffID, l.blob}, [2]digest.Digest{diffID, blob})
					assert.Contains(t, s.visible()[key].Content, l.diffID.String(), "the runtime has the layer's content")
					parent = s.backend("default", l.chain)
					s.commit(parent, key, ref(l.chain))
				}
				assert.Equal(t, template, s.templateOf(parent))
				assert.Equal(t, lower.String()+";"+upper.String()+";", s.visible()[parent].Content)
				assert.Equal(t, record.Provenance{DiffID: upper, Blob: upperBlob}, s.provenanceOf(parent))
				s.requireInvariants()
				assert.Equal(t, before, s.templates(), "no template was created")
				assert.Equal(t, before, s.datasets(), "no runtime is left")
			})
		}
	}
}

// A cancelled pull leaves the cached layer unchanged.
func TestCancelledPullLeavesLayer(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	s.remove(a)
	for range 2 {
		key := s.standIn("default", "", lowerChain)
		s.remove(key)
		s.requireInvariants()
		assert.Equal(t, []string{s.base.Empty().Dataset(), s.base.Storage() + "/" + lowerChain}, s.datasets())
		s.crash()
	}
	s.keep = 0
	s.restart()
	s.cleanup()
	assert.Equal(t, []string{s.base.Empty().Dataset()}, s.datasets())
}

// Three clients pull one layer at the same time, while another one removes it.
func TestConcurrentPullsReuseOneLayer(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	var clients sync.WaitGroup
	for _, namespace := range []string{"one", "two", "three"} {
		key, name := s.backend(namespace, "extract-1-x "+lowerChain), s.backend(namespace, lowerChain)
		clients.Go(func() {
			mounts, err := s.sn.Prepare(s.ctx, key, "", ref(lowerChain))
			if !assert.NoError(t, err) {
				return
			}
			_, _, ok := s.sn.StandIn(mounts[0].Source)
			assert.True(t, ok)
			assert.NoError(t, s.sn.Commit(s.ctx, name, key, ref(lowerChain)))
		})
	}
	clients.Go(func() {
		assert.NoError(t, s.sn.Remove(s.ctx, a))
		assert.NoError(t, s.sn.Cleanup(s.ctx))
	})
	clients.Wait()
	assert.Len(t, s.walk(), 3)
	s.requireInvariants()
	assert.Len(t, s.datasets(), 2)
}

// A client pulls a layer while it is evicted: it gets the layer, reused or unpacked, and its
// removal leaves nothing.
func TestPullsDuringEvictions(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode, keepCached(0))
	content := lower.String() + ";"
	reused := 0
	for range 100 {
		last := s.unpack("default", "", lowerChain, lower, lowerBlob)
		name, key := s.backend("zoo", lowerChain), s.backend("zoo", "extract-1-x "+lowerChain)
		var both sync.WaitGroup
		both.Go(func() {
			assert.NoError(t, s.sn.Remove(s.ctx, last))
			assert.NoError(t, s.sn.Cleanup(s.ctx))
		})
		both.Go(func() {
			mounts, err := s.sn.Prepare(s.ctx, key, "", ref(lowerChain))
			if !assert.NoError(t, err) {
				return
			}
			if _, _, ok := s.sn.StandIn(mounts[0].Source); ok {
				reused++
			} else {
				s.pool.EditFS(mounts[0].Source, func(fs *zfsfake.FS) { fs.Content += content })
			}
			assert.NoError(t, s.sn.Commit(s.ctx, name, key, ref(lowerChain)))
		})
		both.Wait()
		assert.Equal(t, content, s.visible()[name].Content)
		s.remove(name)
		s.requireInvariants()
		require.Len(t, s.datasets(), 1)
	}
	t.Logf("reused %d times, unpacked %d times", reused, 100-reused)
}

// There is no stand-in for a layer with which no diff ID can be compared, or that is requested
// on another parent or without containerd's label.
func TestIncomparableLayerIsUnpacked(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	s.layer("opaque", "", "o;")
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	s.unpack("default", a, upperChain, upper, upperBlob)
	s.unpack("default", "opaque", chain("c"), upper, upperBlob)
	for what, c := range map[string]struct {
		parent, chain string
		opts          []snapshots.Opt
	}{
		"on an opaque parent": {"opaque", chain("c"), []snapshots.Opt{ref(chain("c"))}},
		"on another parent":   {"", upperChain, []snapshots.Opt{ref(upperChain)}},
		"without a label":     {a, upperChain, nil},
		"with a wrong label":  {a, upperChain, []snapshots.Opt{ref("latest")}},
		"not in the pool":     {a, chain("d"), []snapshots.Opt{ref(chain("d"))}},
	} {
		key := s.backend("zoo", "extract-1-x "+c.chain)
		s.prepare(key, c.parent, c.opts...)
		_, _, ok := s.sn.StandIn(s.dataset(key))
		assert.False(t, ok, what)
	}
	s.requireInvariants()
}
