package snapshotter

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// A record is restored only if the properties and the origin of the template give the chain
// ID in the name.
func TestUnprovenLayerIsNotRestored(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		make func(s *fixture) (lost string)
		says string
	}{
		"no template": {func(s *fixture) string {
			lost := s.image("default", "a;")[0]
			s.remove(lost)
			s.keep = 0
			s.restart()
			s.cleanup()
			return lost
		}, "is not in the pool"},
		"no diff ID":                 {func(s *fixture) string { return s.imageWithDiffID("") }, "has no property zfstpl:diff-id"},
		"malformed diff ID":          {func(s *fixture) string { return s.imageWithDiffID("sha256:12") }, "has no property zfstpl:diff-id"},
		"diff ID of another layer":   {func(s *fixture) string { return s.imageWithDiffID(digest.FromString("other;")) }, "has no property zfstpl:diff-id"},
		"on another parent":          {(*fixture).layerOnWrongParent, "has no property zfstpl:diff-id"},
		"on a commit of a container": {(*fixture).layerOnCommit, "is not in the pool"},
		"on an owned layer":          {(*fixture).layerOnOwnedLayer, "is not in the pool"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			lost := c.make(s)
			if slices.Contains(s.names(), lost) {
				s.loseRecords(lost)
			}
			txg := s.txg()
			for how, heal := range healOps {
				err := heal(s, lost, "default/80/web")
				require.ErrorIs(t, err, errdefs.ErrNotFound, how)
				assert.ErrorContains(t, err, c.says, how)
				assert.ErrorContains(t, err, lost, how)
				assert.ErrorContains(t, err, "tank/z/storage/"+chainIDOf(lost), how)
				for _, command := range []string{"ctr images rm --sync", "crictl rmi", "docker rmi"} {
					assert.ErrorContains(t, err, command, how)
				}
			}
			assert.Equal(t, txg, s.txg(), "no transaction")
			assert.NotContains(t, s.names(), lost)
			assert.Zero(t, s.restorations())
			assert.Empty(t, heldLocks(s.sn))
		})
	}
}

// imageWithDiffID pulls an image of two layers, sets the diff ID of the upper one and returns
// its name.
func (s *fixture) imageWithDiffID(diffID digest.Digest) string {
	s.Helper()
	names := s.image("default", "a;", "b;")
	s.setDiffID(names[1], diffID)
	return names[1]
}

// layerOnWrongParent pulls a layer without a parent under the chain ID of b on a.
func (s *fixture) layerOnWrongParent() string {
	s.Helper()
	a, b := digest.FromString("a;"), digest.FromString("b;")
	name, _ := s.pull("default", "", layout.ChainID(a.String(), b.String()), "b;")
	s.setDiffID(name, b)
	return name
}

// layerOnCommit pulls layers on the commit of a container, which is private to its namespace.
// The diff ID and the origin of the upper layer are right.
func (s *fixture) layerOnCommit() string {
	s.Helper()
	s.layer("default/70/saved", "", "private;")
	return s.twoLayersOn("default/70/saved")
}

// layerOnOwnedLayer pulls shared layers on one that belongs to a namespace.
func (s *fixture) layerOnOwnedLayer() string {
	s.Helper()
	s.with = ownTemplates
	s.restart()
	private := s.image("zoo", "private;")[0]
	s.with = nil
	s.restart()
	return s.twoLayersOn(private)
}

// twoLayersOn pulls two layers on a snapshot and returns the name of the upper one.
func (s *fixture) twoLayersOn(parent string) string {
	s.Helper()
	x, y := digest.FromString("x;"), digest.FromString("y;")
	below, _ := s.pull("default", parent, x.String(), "x;")
	top, _ := s.pull("default", below, layout.ChainID(x.String(), y.String()), "y;")
	s.setDiffID(top, y)
	return top
}

// Names that are not of containerd's form for layers return NotFound.
func TestOnlyLayerNamesAreRestored(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.image("default", "a;")
	id := digest.FromString("a;").String()
	for _, name := range []string{
		id, "default/" + id, "default/0/" + id, "default/07/" + id, "default/x/" + id, "a b/7/" + id, "/7/" + id,
		"default/7/" + id + "\n", "default/7/extract-1-x " + id, "default/7/8/" + id,
	} {
		for how, heal := range healOps {
			err := heal(s, name, "default/80/web")
			require.ErrorIs(t, err, errdefs.ErrNotFound, "%s of %q", how, name)
			assert.NotContains(t, err.Error(), "crictl", "%s of %q", how, name)
		}
	}
	assert.Zero(t, s.restorations())
}

// If namespaces share no templates, a namespace gets a restored record of its own layers, and
// none of another's, whatever names it invents.
func TestRestoreRevealsNoLayerOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	s := newFixture(t, settings(ownTemplates))
	mine := s.image("default", "secret;", "b;")
	asked := func(namespace string) *fixture {
		other := *s
		if namespace != "" {
			other.ctx = namespaces.WithNamespace(s.ctx, namespace)
		}
		return &other
	}
	s.loseRecords(mine...)
	for how, heal := range healOps {
		for _, name := range mine {
			err := heal(s, "zoo/7/"+chainIDOf(name), "zoo/80/web")
			require.ErrorIs(t, err, errdefs.ErrNotFound, how)
			unknown := digest.FromString("unknown").String()
			nowhere := heal(s, "zoo/7/"+unknown, "zoo/80/web")
			assert.Equal(t, strings.ReplaceAll(nowhere.Error(), unknown, chainIDOf(name)), err.Error(), "the error for a layer that does not exist is the same")
			require.ErrorIs(t, heal(asked("zoo"), name, "zoo/80/web"), errdefs.ErrNotFound, "%s: the caller's namespace is another", how)
		}
	}
	require.Zero(t, s.restorations())
	for _, namespace := range []string{"", "default"} {
		for _, name := range mine {
			require.NoError(t, healOps["stat"](asked(namespace), name, ""))
		}
		assert.Equal(t, "secret;b;", s.visible()[mine[1]].Content)
		s.loseRecords(mine...)
	}

	// Layers that were pulled with the setting are not shared without it.
	s.with = nil
	s.restart()
	for how, heal := range healOps {
		require.ErrorIs(t, heal(s, mine[0], "default/80/web"), errdefs.ErrNotFound, how)
	}
	// Shared layers belong to no namespace with the setting.
	shared := s.image("default", "shared;")[0]
	s.loseRecords(shared)
	isolated := *s
	isolated.ctx = WithOwnTemplates(s.ctx)
	require.ErrorIs(t, healOps["view"](&isolated, shared, "default/80/web"), errdefs.ErrNotFound, "containerd isolates its namespaces")
	s.with = ownTemplates
	s.restart()
	require.ErrorIs(t, healOps["view"](s, shared, "default/80/web"), errdefs.ErrNotFound)
}
