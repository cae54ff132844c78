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

// A name proves nothing. A record is restored only when what the pool says of the
// template gives the chain ID.
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
		"no digest":                  {func(s *fixture) string { return s.imageWithDiffID("sha256:12") }, "has no property zfstpl:diff-id"},
		"another layer":              {func(s *fixture) string { return s.imageWithDiffID(digest.FromString("other;")) }, "has no property zfstpl:diff-id"},
		"on another layer":           {(*fixture).layerOnWrongParent, "has no property zfstpl:diff-id"},
		"on a commit of a container": {(*fixture).layerOnCommit, "is not in the pool"},
		"on another namespace's":     {(*fixture).layerOnOwnedLayer, "is not in the pool"},
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
			assert.Equal(t, txg, s.txg(), "nothing is written")
			assert.NotContains(t, s.names(), lost)
			assert.Zero(t, s.restorations())
			assert.Empty(t, heldLocks(s.sn))
		})
	}
}

// falseImage is an image whose upper layer's template says that it comes from another.
func (s *fixture) imageWithDiffID(diffID digest.Digest) string {
	s.Helper()
	names := s.image("default", "a;", "b;")
	s.setDiffID(names[1], diffID)
	return names[1]
}

// layerElsewhere is a layer that claims the chain ID of b on a, and stands on nothing.
func (s *fixture) layerOnWrongParent() string {
	s.Helper()
	a, b := digest.FromString("a;"), digest.FromString("b;")
	name, _ := s.pull("default", "", layout.ChainID(a.String(), b.String()), "b;")
	s.setDiffID(name, b)
	return name
}

// layerOnCommit is a layer on what a container's commit made, which only its owner can
// name. Its own diff ID and its origin fit.
func (s *fixture) layerOnCommit() string {
	s.Helper()
	s.layer("default/70/saved", "", "private;")
	return s.twoLayersOn("default/70/saved")
}

// layerOnOwn is a layer for everybody on one that was its namespace's own.
func (s *fixture) layerOnOwnedLayer() string {
	s.Helper()
	s.with = ownTemplates
	s.restart()
	private := s.image("zoo", "private;")[0]
	s.with = nil
	s.restart()
	return s.twoLayersOn(private)
}

// layersOn pulls two layers on a snapshot, and returns the upper one's name.
func (s *fixture) twoLayersOn(parent string) string {
	s.Helper()
	x, y := digest.FromString("x;"), digest.FromString("y;")
	below, _ := s.pull("default", parent, x.String(), "x;")
	top, _ := s.pull("default", below, layout.ChainID(x.String(), y.String()), "y;")
	s.setDiffID(top, y)
	return top
}

// A name that containerd does not make of a layer is not there, as ever.
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

// With templates of their own no namespace gets what another pulled, whatever name it
// makes up; its own it gets.
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
			// It says the same of a layer that is nowhere.
			unknown := digest.FromString("unknown").String()
			nowhere := heal(s, "zoo/7/"+unknown, "zoo/80/web")
			assert.Equal(t, strings.ReplaceAll(nowhere.Error(), unknown, chainIDOf(name)), err.Error(), "of a layer that is nowhere it says the same")
			require.ErrorIs(t, heal(asked("zoo"), name, "zoo/80/web"), errdefs.ErrNotFound, "%s: the caller says who it is", how)
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

	// What was pulled while layers were not shared is not shared later.
	s.with = nil
	s.restart()
	for how, heal := range healOps {
		require.ErrorIs(t, heal(s, mine[0], "default/80/web"), errdefs.ErrNotFound, how)
	}
	// And what was shared is of no namespace afterwards.
	shared := s.image("default", "shared;")[0]
	s.loseRecords(shared)
	isolated := *s
	isolated.ctx = WithOwnTemplates(s.ctx)
	require.ErrorIs(t, healOps["view"](&isolated, shared, "default/80/web"), errdefs.ErrNotFound, "containerd isolates its namespaces")
	s.with = ownTemplates
	s.restart()
	require.ErrorIs(t, healOps["view"](s, shared, "default/80/web"), errdefs.ErrNotFound)
}
