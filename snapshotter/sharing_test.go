package snapshotter

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func ownTemplates(c *Config) { c.OwnTemplates = true }
func reuseOff(c *Config)     { c.ReuseLayers = ReuseOff }

// pullChain pulls a chain of layers. It returns the name of the highest one and the number of
// layers that were unpacked.
func (s *fixture) pullChain(namespace, content string, ids ...string) (name string, unpacked int) {
	s.Helper()
	for _, id := range ids {
		var isNew bool
		name, isNew = s.pull(namespace, name, id, content+id[7:8]+";")
		if isNew {
			unpacked++
		}
	}
	return name, unpacked
}

// If namespaces share no templates, a namespace finds its own layers and none of another's.
func TestNamespacesShareNoTemplates(t *testing.T) {
	t.Parallel()
	s := newFixture(t, settings(ownTemplates))
	ids := []string{chain("a"), chain("b")}
	mine, unpacked := s.pullChain("default", "mine ", ids...)
	assert.Equal(t, 2, unpacked)
	// "zoo" sorts after "default", so without Walk's order containerd would find the other's.
	theirs, unpacked := s.pullChain("zoo", "theirs ", ids...)
	assert.Equal(t, 2, unpacked, "no layer of another namespace is found")
	assert.Equal(t, "mine a;mine b;", s.visible()[mine].Content)
	assert.Equal(t, "theirs a;theirs b;", s.visible()[theirs].Content)
	assert.Len(t, s.templates(), 5)
	for _, dataset := range s.templates()[1:] {
		assert.Regexp(t, `^tank/z/storage/ns-[0-9a-f]{16}-sha256:[0-9a-f]{64}$`, dataset)
		assert.NotContains(t, dataset, "zoo")
	}

	for _, again := range []func(){s.cleanup, s.restart, s.crash} {
		s.remove(theirs, s.stat(theirs).Parent)
		s.cleanup()
		again()
		theirs, unpacked = s.pullChain("zoo", "", ids...)
		assert.Zero(t, unpacked, "its own layers are found")
		assert.Equal(t, "theirs a;theirs b;", s.visible()[theirs].Content)
	}
	s.requireInvariants()
}

// If containerd isolates its namespaces, they share no templates, whatever the configuration.
// A layer that was shared before stays with the namespaces that have it.
func TestIsolatedCallerSharesNoTemplates(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	ids := []string{chain("a"), chain("b")}
	shared, unpacked := s.pullChain("default", "shared ", ids...)
	assert.Equal(t, 2, unpacked)
	s.ctx = WithOwnTemplates(s.ctx)
	theirs, unpacked := s.pullChain("zoo", "theirs ", ids...)
	assert.Equal(t, 2, unpacked, "no layer of another namespace is found")
	again, unpacked := s.pullChain("zoo", "", ids...)
	assert.Zero(t, unpacked, "its own layers are found")
	assert.Equal(t, theirs, again)
	assert.Equal(t, "shared a;shared b;", s.visible()[shared].Content)
	assert.Equal(t, "theirs a;theirs b;", s.visible()[theirs].Content)
	s.requireInvariants()
}

// A caller without a namespace in its context unpacks, because containerd could find a layer
// of another namespace.
func TestCallerWithoutNamespaceUnpacks(t *testing.T) {
	t.Parallel()
	s := newFixture(t, settings(ownTemplates))
	name, _ := s.pull("default", "", chain("a"), "a;")
	for _, ctx := range []struct{ namespace, key string }{
		{"", "default/8/extract-1-x " + chain("a")},
		{"zoo", "default/9/extract-1-x " + chain("a")},
	} {
		c := s.ctx
		if ctx.namespace != "" {
			c = namespaces.WithNamespace(c, ctx.namespace)
		}
		require.NoError(t, second(s.sn.Prepare(c, ctx.key, "", ref(chain("a")))))
	}
	// The commit adds a record to the template, because the names give the namespace.
	s.commit("default/10/"+chain("a"), "default/8/extract-1-x "+chain("a"))
	assert.Equal(t, s.templateOf(name), s.templateOf("default/10/"+chain("a")))
	// It does not if the names of key and commit are of two namespaces.
	s.commit("zoo/11/"+chain("a"), "default/9/extract-1-x "+chain("a"))
	assert.Contains(t, s.templateOf("zoo/11/"+chain("a")), "/opaque-")
	s.requireInvariants()
}

// containerd 1.7 does not send its namespace. Its lowest layer is unpacked, because it could
// find that of another namespace. The layers on its own lowest layer are reused.
func TestContainerd17ReusesAllButLowestLayer(t *testing.T) {
	t.Parallel()
	s := newFixture(t, settings(ownTemplates))
	pull := func(namespace string) (name string, unpacked []string) {
		for _, digit := range []string{"a", "b", "c"} {
			key := s.backend(namespace, "extract-1-x "+chain(digit))
			err := second(s.sn.Prepare(s.ctx, key, name, ref(chain(digit))))
			if errdefs.IsAlreadyExists(err) {
				name = s.findCommitted(name, chain(digit))
				continue
			}
			require.NoError(t, err)
			s.write(key, namespace+digit+";")
			name = s.backend(namespace, chain(digit))
			s.commit(name, key, ref(chain(digit)))
			unpacked = append(unpacked, digit)
		}
		return name, unpacked
	}
	for _, ns := range []string{"default", "attacker", "zoo"} {
		_, unpacked := pull(ns)
		assert.Equal(t, []string{"a", "b", "c"}, unpacked)
	}
	for _, ns := range []string{"default", "zoo"} {
		name, unpacked := pull(ns)
		assert.Equal(t, []string{"a"}, unpacked)
		assert.Equal(t, ns+"a;"+ns+"b;"+ns+"c;", s.visible()[name].Content)
	}
	s.requireInvariants()
}

// Another namespace has children of a layer from the time when templates were shared. They are
// not found in place of the namespace's own layers.
func TestReuseFindsOwnLayerOnSharedParent(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	shared, _ := s.pull("default", "", chain("a"), "a;")
	s.with = ownTemplates
	s.restart()
	_, unpacked := s.pull("attacker", shared, chain("b"), "evil;")
	require.True(t, unpacked)
	mine, unpacked := s.pull("default", shared, chain("b"), "b;")
	require.True(t, unpacked)
	s.remove(mine)

	key := s.backend("default", "extract-1-x "+chain("b"))
	require.NoError(t, second(s.sn.Prepare(s.ctx, key, shared, ref(chain("b")))), "a caller without a namespace unpacks")
	s.remove(key)
	mine, unpacked = s.pull("default", shared, chain("b"), "")
	assert.False(t, unpacked, "a caller with a namespace finds its own layer")
	assert.Equal(t, "a;b;", s.visible()[mine].Content)
	s.requireInvariants()
}

// Templates that were created under the other setting stay usable for the snapshots on them,
// and get no records from other namespaces.
func TestTemplatesSurviveChangeOfSharing(t *testing.T) {
	t.Parallel()
	for what, first := range map[string]bool{"from shared": false, "to shared": true} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, settings(func(c *Config) { c.OwnTemplates = first }), keepCached(0))
			old, _ := s.pullChain("default", "old ", chain("a"))
			s.prepare("default/80/web", old)
			s.with = func(c *Config) { c.OwnTemplates = !first }
			s.restart()
			assert.Equal(t, "old a;", s.visible()["default/80/web"].Content)
			on, unpacked := s.pull("default", old, chain("b"), "b;")
			assert.True(t, unpacked)
			s.prepare("default/81/db", on)
			assert.Equal(t, "old a;b;", s.visible()["default/81/db"].Content)

			other, unpacked := s.pull("zoo", "", chain("a"), "new a;")
			assert.True(t, unpacked)
			assert.NotEqual(t, s.templateOf(old), s.templateOf(other))
			s.requireInvariants()
			s.remove("default/81/db", "default/80/web", on, old, other)
			s.requireInvariants()
			assert.Len(t, s.datasets(), 1)
		})
	}
}

// If namespaces share no templates, Walk returns the snapshots of the caller's namespace first.
func TestWalkReturnsCallersNamespaceFirst(t *testing.T) {
	t.Parallel()
	s := newFixture(t, settings(ownTemplates))
	for _, key := range []string{"a/1/x", "b/2/x", "c/3/x", "plain"} {
		s.prepare(key, "")
	}
	assert.Equal(t, []string{"a/1/x", "b/2/x", "c/3/x", "plain"}, s.names())
	s.ctx = namespaces.WithNamespace(s.ctx, "b")
	var names []string
	require.NoError(t, s.sn.Walk(s.ctx, func(_ context.Context, info snapshots.Info) error {
		names = append(names, info.Name)
		return nil
	}))
	assert.Equal(t, []string{"b/2/x", "a/1/x", "c/3/x", "plain"}, names)
}

// NamespaceOf finds the namespace of a mount source by the names of the snapshots that mount
// it.
func TestNamespaceOfMountSource(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	name, _ := s.pull("default", "", chain("a"), "a;")
	other, _ := s.pull("k8s.io", "", chain("a"), "a;")
	runtime := s.prepare("k8s.io/8/runs", other)[0].Source
	assert.Equal(t, "k8s.io", s.sn.NamespaceOf(runtime))
	template := s.templateOf(name) + "@extracted"
	assert.Empty(t, s.sn.NamespaceOf(template), "it has no view")
	s.view("default/9/one", name)
	s.view("default/10/two", name)
	assert.Equal(t, "default", s.sn.NamespaceOf(template))
	s.view("k8s.io/11/three", other)
	assert.Empty(t, s.sn.NamespaceOf(template), "views of two namespaces")
	s.remove("default/9/one", "default/10/two")
	assert.Equal(t, "k8s.io", s.sn.NamespaceOf(template))
	s.view("plain", other)
	assert.Empty(t, s.sn.NamespaceOf(template), "a view without a namespace")
	assert.Empty(t, s.sn.NamespaceOf("tank/else"))
}

// In ReuseOff every requested layer is unpacked, and its commit adds a record to the existing
// template.
func TestReuseOffUnpacksAgain(t *testing.T) {
	t.Parallel()
	s := newFixture(t, settings(reuseOff))
	for range 2 {
		for _, ns := range []string{"default", "k8s.io"} {
			_, unpacked := s.pullChain(ns, "", chain("a"), chain("b"))
			assert.Equal(t, 2, unpacked)
		}
		s.restart()
	}
	assert.Len(t, s.templates(), 3, "one template for each layer")
	name, _ := s.pull("default", "", chain("a"), "a;")
	s.requireInvariants()
	// AlreadyExists for an existing key does not change.
	_, err := s.sn.Prepare(s.ctx, name, "", ref(chain("b")))
	assert.ErrorIs(t, err, errdefs.ErrAlreadyExists)
	assert.NotContains(t, s.log.String(), "added record of layer")
	assert.False(t, strings.Contains(s.log.String(), "level=warning"), s.log)
}
