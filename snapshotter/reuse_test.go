package snapshotter

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func reuseMode(mode ReuseMode) func(c *Config) { return func(c *Config) { c.ReuseLayers = mode } }

// fetching is a base whose layers are reused when containerd has fetched their blobs.
func fetchMode(s *fixture) { settings(reuseMode(ReuseFetch))(s) }

// standIn prepares the extraction of a layer that is in the pool.
func (s *fixture) standIn(namespace, parent, chain string, opts ...snapshots.Opt) (key string) {
	s.Helper()
	key = s.backend(namespace, "extract-1-x "+chain)
	s.prepare(key, parent, append(opts, ref(chain))...)
	_, _, ok := s.sn.StandIn(s.dataset(key))
	require.True(s, ok, "%q is an ordinary extraction", key)
	return key
}

// Whose blobs are fetched, whose are not, and what a label can change about that.
func TestReuseModeFollowsConfigAndLabel(t *testing.T) {
	t.Parallel()
	a := lowerChain
	in := map[string]ReuseMode{"skips": ReuseSkip, "fetches": ReuseFetch, "unpacks": ReuseOff, "plain": ReuseAuto}
	for _, c := range []struct {
		mode      ReuseMode
		in        map[string]ReuseMode
		namespace string
		label     string
		want      ReuseMode
	}{
		{ReuseAuto, nil, "default", "", ReuseFetch},
		{ReuseAuto, nil, "k8s.io", "", ReuseSkip},
		{"", nil, "moby", "", ReuseFetch},
		{"", nil, "k8s.io", "", ReuseSkip},
		{ReuseSkip, nil, "default", "", ReuseSkip},
		{ReuseFetch, nil, "k8s.io", "", ReuseFetch},
		{ReuseOff, nil, "k8s.io", "", ReuseOff},
		{ReuseOff, in, "skips", "", ReuseSkip},
		{ReuseOff, in, "fetches", "", ReuseFetch},
		{ReuseSkip, in, "unpacks", "", ReuseOff},
		{ReuseOff, in, "plain", "", ReuseFetch},
		{ReuseOff, in, "default", "", ReuseOff},
		{ReuseSkip, nil, "default", "fetch", ReuseFetch},
		{ReuseSkip, nil, "default", "off", ReuseOff},
		{ReuseFetch, nil, "default", "fetch", ReuseFetch},
		{ReuseFetch, nil, "default", "off", ReuseOff},
		{ReuseOff, nil, "default", "fetch", ReuseOff}, // a label asks for more, never for less
	} {
		s := newFixture(t, settings(func(config *Config) { config.ReuseLayers, config.ReuseLayersIn = c.mode, c.in }))
		s.unpack("first", "", a, lower, lowerBlob)
		opts := []snapshots.Opt{ref(a)}
		if c.label != "" {
			opts = append(opts, label(ReuseLabel, c.label))
		}
		key := s.backend(c.namespace, "extract-1-x "+a)
		_, err := s.sn.Prepare(s.ctx, key, "", opts...)
		got := ReuseSkip
		if !errdefs.IsAlreadyExists(err) {
			require.NoError(t, err)
			if got = ReuseOff; s.sn.index.templates[s.templateOf("first/2/"+a)].standIns > 0 {
				got = ReuseFetch
			}
			s.commit(s.backend(c.namespace, a), key)
		}
		assert.Equal(t, c.want, got, "%+v", c)
		assert.Len(t, s.templates(), 2)
		s.requireInvariants()
	}
}

// A label that says something else is rejected, and so is a word in the configuration.
func TestUnknownReuseModeIsRejected(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	for _, value := range []string{"skip", "auto", "", "Fetch", "fetch ", strings.Repeat("x", 1000)} {
		key := s.backend("default", "extract-1-x "+lowerChain)
		_, err := s.sn.Prepare(s.ctx, key, "", ref(lowerChain), label(ReuseLabel, value))
		require.ErrorIs(t, err, errdefs.ErrInvalidArgument, "%q", value)
		assert.ErrorContains(t, err, ReuseLabel)
		assert.Less(t, len(err.Error()), 500)
	}
	// A committed snapshot keeps what containerd copies to it, and Update what it is given.
	s.view("look", a, label(ReuseLabel, "skip"))
	key := s.standIn("default", "", lowerChain, label(ReuseLabel, "fetch"))
	_, err := s.sn.Update(s.ctx, snapshots.Info{Name: key, Labels: map[string]string{ReuseLabel: "skip"}}, "labels."+ReuseLabel)
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	s.commit(s.backend("default", lowerChain), key, label(ReuseLabel, "fetch"))
	s.requireInvariants()

	for _, with := range []func(*Config){reuseMode("yes"), func(c *Config) { c.ReuseLayersIn = map[string]ReuseMode{"moby": "never"} }} {
		config := s.config()
		with(&config)
		_, err := New(s.ctx, s.pool, config)
		require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	}
}

// A layer that is in the pool is pulled again with its blob: the runtime is a clone of
// the layer's own template, nothing is unpacked into it, and the commit is one more
// record on that template.
func TestFetchedLayerIsNotUnpacked(t *testing.T) {
	t.Parallel()
	for what, again := range map[string]func(*fixture){
		"at once":         func(*fixture) {},
		"after a cleanup": (*fixture).cleanup,
		"after a restart": (*fixture).restart,
		"after a crash":   func(s *fixture) { s.cleanup(); s.crash() },
	} {
		for mode, with := range map[string]func(*Config){
			"shared": reuseMode(ReuseFetch), "its own": func(c *Config) { c.ReuseLayers, c.OwnTemplates = ReuseFetch, true },
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
					again(s) // what it stands for is not forgotten
					assert.Equal(t, parent, s.stat(key).Parent, "what containerd passed")
					usage, err := s.sn.Usage(s.ctx, key)
					require.NoError(t, err)
					assert.Zero(t, usage, "it holds nothing")
					diffID, blob, ok := s.sn.StandIn(s.dataset(key))
					assert.True(t, ok)
					assert.Equal(t, [2]digest.Digest{l.diffID, l.blob}, [2]digest.Digest{diffID, blob})
					assert.Contains(t, s.visible()[key].Content, l.diffID.String(), "the layer is in it")
					parent = s.backend("default", l.chain)
					s.commit(parent, key, ref(l.chain))
				}
				assert.Equal(t, template, s.templateOf(parent))
				assert.Equal(t, lower.String()+";"+upper.String()+";", s.visible()[parent].Content)
				assert.Equal(t, provenance{upper, upperBlob}, s.provenanceOf(parent))
				s.requireInvariants()
				assert.Equal(t, before, s.templates(), "the very same templates")
				assert.Equal(t, before, s.datasets(), "and no runtime")
			})
		}
	}
}

// The layer stays for as long as a runtime stands for it, whatever is evicted meanwhile.
func TestStandInKeepsItsLayer(t *testing.T) {
	t.Parallel()
	for what, evict := range map[string]func(*fixture){
		"for its age": (*fixture).cleanup,
		"for want of space": func(s *fixture) {
			s.pool.edit(func(state *fakeState) { state.size = state.below("tank") })
			_, err := s.sn.Prepare(s.ctx, "web", "")
			require.ErrorIs(s, err, errdefs.ErrResourceExhausted)
			s.pool.edit(func(state *fakeState) { state.size = 0 })
		},
		"after a restart": func(s *fixture) { s.restart(); s.cleanup() },
		"after a crash":   func(s *fixture) { s.crash(); s.cleanup() },
	} {
		for _, inUse := range []bool{false, true} {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				s := newFixture(t, fetchMode, keepCached(0))
				a := s.unpack("default", "", lowerChain, lower, lowerBlob)
				if !inUse {
					s.remove(a)
					require.NoError(t, s.sn.journal.flush(s.ctx))
				}
				key := s.standIn("zoo", "", lowerChain)
				entries, err := Inspect(s.ctx, s.pool, s.base)
				require.NoError(t, err)
				for _, e := range entries {
					if e.State == StateGarbage {
						continue // what was committed
					}
					assert.Equal(t, StateUsed, e.State, e.Dataset)
					assert.Equal(t, e.Dataset == s.dataset(key), e.StandInFor == lowerChain)
				}
				evict(s)
				s.cleanup()
				assert.Zero(t, s.sn.index.due(0, 1, time.Now()), "and no cleanup is owed for it")
				_, _, ok := s.sn.StandIn(s.dataset(key))
				require.True(t, ok)
				name := s.backend("zoo", lowerChain)
				s.commit(name, key, ref(lowerChain))
				assert.Equal(t, lower.String()+";", s.visible()[name].Content)
				s.requireInvariants()
				if s.remove(name); inUse {
					s.remove(a)
				}
				s.requireInvariants()
				assert.Equal(t, []string{s.base.Empty().Dataset()}, s.datasets(), "nothing is left of it")
			})
		}
	}
}

// A pull that is cancelled leaves the layer as it was.
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

// The name that containerd gives to the layer is one that its old database gave before.
func TestStandInCommitReplacesRecordOfOldDatabase(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	template := s.templateOf(a)
	key := s.standIn("default", "", lowerChain)
	s.commit(a, key)
	assert.Equal(t, template, s.templateOf(a))
	s.requireInvariants()
}

// A stand-in becomes the layer that it stands for or nothing.
func TestStandInCommitsOnlyAsItsLayer(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	b := s.unpack("default", a, upperChain, upper, upperBlob)
	key := s.standIn("default", a, upperChain)
	before := s.datasets()
	for _, name := range []string{"default/90/bk-12345", "default/91/" + lowerChain, "default/92/" + upperChain + "-init", "saved"} {
		err := s.sn.Commit(s.ctx, name, key)
		require.ErrorIs(t, err, errdefs.ErrFailedPrecondition, name)
		assert.ErrorContains(t, err, upperChain)
	}
	require.ErrorIs(t, s.sn.Commit(s.ctx, "default/93/"+upperChain, key, snapshots.WithParent(b)), errdefs.ErrInvalidArgument)
	assert.Equal(t, before, s.datasets())
	assert.Empty(t, heldLocks(s.sn))

	// It is an ordinary container's root all the same, and what is written stays its own.
	s.write(key, "w;")
	assert.Equal(t, lower.String()+";"+upper.String()+";w;", s.visible()[key].Content)
	assert.Equal(t, lower.String()+";"+upper.String()+";", s.visible()[b].Content)
	s.requireInvariants()

	// What another applier unpacks over the same content is dropped with the runtime.
	s.commit("default/94/"+upperChain, key)
	assert.Equal(t, lower.String()+";"+upper.String()+";", s.visible()["default/94/"+upperChain].Content)
	s.requireInvariants()
}

// The setting about sharing is another after a restart: what belongs to all namespaces
// is not made one's own, and the other way round.
func TestStandInIsNotCommittedAfterChangeOfSharing(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		s := newFixture(t, settings(func(c *Config) { c.ReuseLayers, c.OwnTemplates = ReuseFetch, own }))
		s.unpack("default", "", lowerChain, lower, lowerBlob)
		key := s.standIn("default", "", lowerChain)
		settings(func(c *Config) { c.ReuseLayers, c.OwnTemplates = ReuseFetch, !own })(s)
		s.restart()
		err := s.sn.Commit(s.ctx, "default/99/"+lowerChain, key)
		require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
		s.remove(key)
		s.requireInvariants()
	}
	// Nor does one namespace commit what another one prepared.
	s := newFixture(t, settings(func(c *Config) { c.ReuseLayers, c.OwnTemplates = ReuseFetch, true }))
	s.unpack("default", "", lowerChain, lower, lowerBlob)
	key := s.standIn("default", "", lowerChain)
	require.ErrorIs(t, s.sn.Commit(s.ctx, "zoo/99/"+lowerChain, key), errdefs.ErrFailedPrecondition)
	other := s.backend("zoo", "extract-1-x "+lowerChain)
	s.prepare(other, "", ref(lowerChain))
	_, _, ok := s.sn.StandIn(s.dataset(other))
	assert.False(t, ok, "another namespace's layer is not found")
	s.requireInvariants()
}

// Two clients pull one layer at the same time, while a third one removes it.
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

// Clients pull a layer while it is evicted, again and again: each gets the layer, reused
// or unpacked, and nothing is left when it goes.
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
				s.pool.editFS(mounts[0].Source, func(fs *fakeFS) { fs.content += content })
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

// Which layer a blob is that the template was not unpacked from is found out by its
// content. A template of an older release learns from that where it comes from.
func TestRecognizeComparesBlobWithLayer(t *testing.T) {
	t.Parallel()
	other := digest.FromString("other")
	for what, c := range map[string]struct {
		forget       bool // the template says nothing
		diffID, blob digest.Digest
		want         provenance
		err          error
	}{
		"another compression":       {false, upper, other, provenance{upper, upperBlob}, nil},
		"another layer":             {false, lower, other, provenance{upper, upperBlob}, errdefs.ErrInvalidArgument},
		"an old template":           {true, upper, other, provenance{upper, other}, nil},
		"another layer, and an old": {true, lower, other, provenance{}, errdefs.ErrInvalidArgument},
		"without a blob's digest":   {true, upper, "x", provenance{upper, ""}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, fetchMode)
			a := s.unpack("default", "", lowerChain, lower, lowerBlob)
			b := s.unpack("default", a, upperChain, upper, upperBlob)
			if c.forget {
				s.pool.editFS(s.templateOf(b), func(fs *fakeFS) { delete(fs.props, propDiffID); delete(fs.props, propBlob) })
				s.restart()
			}
			key := s.standIn("zoo", a, upperChain)
			err := s.sn.Recognize(s.ctx, s.dataset(key), c.diffID, c.blob)
			require.ErrorIs(t, err, c.err)
			assert.Equal(t, c.want, s.provenanceOf(b))
			err = s.sn.Commit(s.ctx, s.backend("zoo", upperChain), key, ref(upperChain))
			if c.err != nil {
				require.ErrorIs(t, err, errdefs.ErrFailedPrecondition, "it is not joined")
				s.remove(key)
				key = s.standIn("zoo", a, upperChain)
				err = s.sn.Commit(s.ctx, s.backend("zoo", upperChain), key, ref(upperChain))
			}
			require.NoError(t, err)
			s.requireInvariants()
		})
	}
}

// What cannot be written about a template does not fail a pull.
func TestFailedWriteOfProvenanceDoesNotFailPull(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	s.pool.editFS(s.templateOf(a), func(fs *fakeFS) { delete(fs.props, propDiffID); delete(fs.props, propBlob) })
	s.restart()
	key := s.standIn("zoo", "", lowerChain)
	runtime := s.dataset(key)
	s.pool.interrupt(func(call string) error {
		if call == "apply" {
			return fakeError("set", a, zfs.ErrNoSpace)
		}
		return nil
	})
	require.NoError(t, s.sn.Recognize(s.ctx, runtime, lower, lowerBlob))
	s.pool.interrupt(nil)
	assert.Empty(t, s.provenanceOf(a))
	require.NoError(t, s.sn.Recognize(s.ctx, runtime, lower, lowerBlob))
	assert.Equal(t, provenance{lower, lowerBlob}, s.provenanceOf(a))
	s.remove(key)
	require.ErrorIs(t, s.sn.Recognize(s.ctx, runtime, lower, lowerBlob), errdefs.ErrNotFound)
	_, _, ok := s.sn.StandIn(runtime)
	assert.False(t, ok)
}

// Nothing stands for a layer that no diff ID can be compared with, or that is asked for
// on another parent, or without containerd's label.
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

// A second attempt is for what was unpacked; into a stand-in nothing is.
func TestRenewRefusesStandIn(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	s.unpack("default", "", lowerChain, lower, lowerBlob)
	key := s.standIn("zoo", "", lowerChain)
	_, _, err := s.sn.Renew(s.ctx, s.dataset(key), zfs.ErrNoSpace)
	require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
	require.NoError(t, s.sn.Discard(s.ctx, s.dataset(key)))
	s.commit("zoo/99/"+lowerChain, key)
	s.requireInvariants()
}

// A cached template was destroyed by other hands: the layer is unpacked again.
func TestStandInOfMissingTemplateIsUnpacked(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	s.remove(s.unpack("default", "", lowerChain, lower, lowerBlob))
	require.NoError(t, s.sn.journal.flush(s.ctx))
	s.pool.edit(func(state *fakeState) { delete(state.fs, s.base.Storage()+"/"+lowerChain) })
	s.unpack("default", "", lowerChain, lower, lowerBlob)
	assert.Contains(t, s.log.String(), "cached template is missing; unpacking the layer again")
	assert.Empty(t, s.sn.index.residue)
	s.requireInvariants()
}

// Whatever fails on the way to a stand-in leaves no claim on the layer.
func TestFailedStandInReleasesLayer(t *testing.T) {
	t.Parallel()
	for what, why := range map[string]error{"full": zfs.ErrNoSpace, "suspended": zfs.ErrSuspended, "killed": errKilled} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, fetchMode, keepCached(0))
			s.remove(s.unpack("default", "", lowerChain, lower, lowerBlob))
			require.NoError(t, s.sn.journal.flush(s.ctx))
			failed := false
			s.pool.interrupt(func(call string) error {
				if call == "apply" && !failed {
					failed = !errors.Is(why, zfs.ErrNoSpace)
					return why
				}
				return nil
			})
			_, err := s.sn.Prepare(s.ctx, "default/98/extract-1-x "+lowerChain, "", ref(lowerChain))
			require.Error(t, err)
			s.pool.interrupt(nil)
			assert.Empty(t, s.walk())
			s.requireInvariants()
			assert.Equal(t, []string{s.base.Empty().Dataset()}, s.datasets(), "it was evicted as before")
		})
	}
}

// A commit that is killed, or finds no room, leaves a stand-in that can be committed.
func TestFailedStandInCommitCanBeRetried(t *testing.T) {
	t.Parallel()
	for what, why := range map[string]error{"full": zfs.ErrNoSpace, "killed": errKilled} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, fetchMode, keepCached(0))
			s.remove(s.unpack("default", "", lowerChain, lower, lowerBlob))
			key := s.standIn("default", "", lowerChain)
			require.NoError(t, s.sn.journal.flush(s.ctx))
			times := 2 // that and, for room, once more
			s.pool.interrupt(func(call string) error {
				if call == "apply" && times > 0 {
					times--
					return why
				}
				return nil
			})
			require.Error(t, s.sn.Commit(s.ctx, "default/99/"+lowerChain, key))
			s.pool.interrupt(nil)
			s.cleanup()
			s.restart()
			s.commit("default/99/"+lowerChain, key)
			s.requireInvariants()
			assert.Len(t, s.datasets(), 2)
		})
	}
}

// A container runs on what was reused, and a caller that gives up leaves nothing.
func TestCancelledStandInLeavesNothing(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	s.unpack("default", "", lowerChain, lower, lowerBlob)
	ctx, cancel := context.WithTimeout(s.ctx, time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	_, err := s.sn.Prepare(ctx, "zoo/1/extract-1-x "+lowerChain, "", ref(lowerChain))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	s.requireInvariants()
	assert.Len(t, s.datasets(), 2)
}

// The invariants notice a stand-in that is no clone of its layer, or of one on another
// parent.
func TestInvariantsDetectWrongStandIn(t *testing.T) {
	t.Parallel()
	s := newFixture(t, fetchMode)
	a := s.unpack("default", "", lowerChain, lower, lowerBlob)
	s.unpack("default", a, upperChain, upper, upperBlob)
	key := s.standIn("zoo", a, upperChain)
	runtime := s.dataset(key)
	check := func() error {
		list, err := s.pool.List(s.ctx, s.base.String())
		require.NoError(t, err)
		return CheckInvariants(s.base, list)
	}
	require.NoError(t, check())
	s.pool.editFS(runtime, func(fs *fakeFS) { fs.origin = s.base.Storage() + "/" + lowerChain + "@" + layout.Extracted })
	require.ErrorContains(t, check(), "stand-in for")
	s.restart()
	require.ErrorIs(t, s.sn.Commit(s.ctx, "zoo/99/"+upperChain, key), errdefs.ErrFailedPrecondition, "and it is not committed")
}
