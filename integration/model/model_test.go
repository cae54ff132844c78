package model

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	active    = snapshots.KindActive
	view      = snapshots.KindView
	committed = snapshots.KindCommitted
)

func chain(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

func ref(id string) map[string]string { return map[string]string{snapshots.LabelSnapshotRef: id} }

// newModel returns a model with the committed snapshot "base" and its child "web".
func newModel(t *testing.T) *Model {
	t.Helper()
	m := New(Config{KeepCached: true, ReuseLabel: "reuse"})
	require.NoError(t, m.Create(active, "work", "", nil))
	m.Write("work", "b;")
	require.NoError(t, m.Commit("base", "work", nil))
	require.NoError(t, m.Create(active, "web", "base", nil))
	m.Write("web", "w;")
	return m
}

// pull commits the layer of chain as namespace/n/chain.
func pull(t *testing.T, m *Model, namespace string, n int, id string) (name string) {
	t.Helper()
	key := fmt.Sprintf("%s/%d/extract-1-x %s", namespace, n, id)
	name = fmt.Sprintf("%s/%d/%s", namespace, n+1, id)
	require.NoError(t, m.Create(active, key, "", ref(id)))
	m.Write(key, "layer;")
	require.NoError(t, m.Commit(name, key, ref(id)))
	return name
}

func TestModelHasTheContentOfTheParent(t *testing.T) {
	m := newModel(t)
	require.NoError(t, m.Create(view, "look", "base", nil))
	assert.Equal(t, map[string]Snapshot{
		"base": {committed, "", nil, "b;"},
		"web":  {active, "base", nil, "b;w;"},
		"look": {view, "base", nil, "b;"},
	}, m.Visible())
	assert.Equal(t, []string{"base", "look", "web"}, m.Names())
	assert.Equal(t, []string{"look", "web"}, m.Names(active, view))
	assert.Equal(t, 3, m.Datasets(), "two templates and one runtime")
}

func TestModelPredictsErrors(t *testing.T) {
	for what, c := range map[string]struct {
		want error
		do   func(m *Model) error
	}{
		"create of an existing key":          {errdefs.ErrAlreadyExists, func(m *Model) error { return m.Create(active, "web", "", nil) }},
		"create on a missing parent":         {errdefs.ErrNotFound, func(m *Model) error { return m.Create(active, "x", "missing", nil) }},
		"create on an active parent":         {errdefs.ErrInvalidArgument, func(m *Model) error { return m.Create(view, "x", "web", nil) }},
		"commit of a missing key":            {errdefs.ErrNotFound, func(m *Model) error { return m.Commit("x", "missing", nil) }},
		"commit of a committed snapshot":     {errdefs.ErrFailedPrecondition, func(m *Model) error { return m.Commit("x", "base", nil) }},
		"commit as another active snapshot":  {errdefs.ErrAlreadyExists, func(m *Model) error { return m.Commit("web", "web", nil) }},
		"commit as another committed one":    {errdefs.ErrAlreadyExists, func(m *Model) error { return m.Commit("base", "web", nil) }},
		"remove of a snapshot with children": {errdefs.ErrFailedPrecondition, func(m *Model) error { return m.Remove("base") }},
		"remove of a missing snapshot":       {nil, func(m *Model) error { return m.Remove("missing") }},
		"update of a missing snapshot":       {errdefs.ErrNotFound, func(m *Model) error { return m.Update("missing", nil) }},
	} {
		m := newModel(t)
		before := m.Visible()
		assert.Equal(t, c.want, c.do(m), what)
		assert.Empty(t, Differences(before, m.Visible()), what)
	}
}

func TestModelReusesAnExistingLayer(t *testing.T) {
	m := newModel(t)
	id := chain("a")
	first := pull(t, m, "default", 1, id)
	assert.Equal(t, errdefs.ErrAlreadyExists, m.Create(active, "default/3/extract-1-x "+id, "", ref(id)), "containerd finds the record")
	require.NoError(t, m.Remove(first))
	assert.Equal(t, errdefs.ErrAlreadyExists, m.Create(active, "moby/4/extract-1-x "+id, "", ref(id)), "the layer is cached")
	name, ok := m.Layer(id)
	assert.True(t, ok)
	assert.Equal(t, "moby/4/"+id, name)
	got, _ := m.Get(name)
	assert.Equal(t, Snapshot{committed, "", ref(id), "layer;"}, got)

	require.NoError(t, m.Remove(name))
	standIn, off := ref(id), ref(id)
	standIn["reuse"], off["reuse"] = "fetch", "off"
	require.NoError(t, m.Create(active, "moby/5/extract-1-x "+id, "", standIn))
	require.NoError(t, m.Create(active, "moby/6/extract-1-x "+id, "", off))
	assert.Equal(t, errdefs.ErrFailedPrecondition, m.Commit("moby/7/other", "moby/5/extract-1-x "+id, nil))
	assert.Equal(t, "layer;", m.Visible()["moby/5/extract-1-x "+id].Content)
	assert.Equal(t, "", m.Visible()["moby/6/extract-1-x "+id].Content)
	require.NoError(t, m.Commit("moby/8/"+id, "moby/6/extract-1-x "+id, nil))
	assert.Equal(t, "layer;", m.Visible()["moby/8/"+id].Content, "the existing layer counts")
}

func TestCleanupOfTheModelKeepsCachedLayersOnly(t *testing.T) {
	m := newModel(t)
	require.NoError(t, errors.Join(m.Remove(pull(t, m, "default", 1, chain("a"))), m.Remove("web"), m.Remove("base")))
	m.Cleanup()
	assert.Equal(t, 2, m.Datasets(), "the empty template and the layer")
	m.Reclaim()
	assert.Equal(t, 1, m.Datasets())
	require.NoError(t, m.Create(active, "default/9/extract-1-x "+chain("a"), "", ref(chain("a"))), "the layer is gone")
}

func TestCrashOfTheModelRestoresUnwrittenRemovals(t *testing.T) {
	m := newModel(t)
	before := m.Visible()
	require.NoError(t, errors.Join(m.Remove("web"), m.Remove("base")))
	c := m.Clone()
	m.Crash()
	assert.Empty(t, Differences(before, m.Visible()))
	c.Restart()
	c.Crash()
	assert.Empty(t, c.Visible(), "the removals are in the pool")
}

func TestCrashOfTheModelLeavesOrphansWithoutParent(t *testing.T) {
	m := newModel(t)
	require.NoError(t, errors.Join(m.Remove("web"), m.Remove("base"), m.Create(active, "base", "", nil)))
	m.Crash()
	assert.Equal(t, Snapshot{active, "", nil, "b;w;"}, m.Visible()["web"])
}

func TestModelRenamesASnapshotUnknownToContainerd(t *testing.T) {
	m := newModel(t)
	require.NoError(t, m.Create(active, "default/1/web", "base", nil))
	require.NoError(t, m.Create(active, "default/1/web", "", nil))
	assert.Equal(t, Snapshot{Kind: active}, m.Visible()["default/1/web"])
}

func TestUpdateOfTheModelChangesTheNamedLabels(t *testing.T) {
	m := newModel(t)
	labels := func() map[string]string { return m.Visible()["web"].Labels }
	require.NoError(t, m.Update("web", map[string]string{"a": "1", "b": "2"}))
	require.NoError(t, m.Update("web", map[string]string{"a": "3", "c": "4"}, "labels.a", "labels.b"))
	assert.Equal(t, map[string]string{"a": "3"}, labels())
	require.NoError(t, m.Update("web", nil))
	assert.Nil(t, labels())
}

func TestCopyOfTheModelIsIndependent(t *testing.T) {
	m := newModel(t)
	c := m.Clone()
	c.Write("web", "more;")
	require.NoError(t, errors.Join(c.Remove("web"), c.Remove("base")))
	c.Cleanup()
	m.Crash()
	assert.Equal(t, "b;w;", m.Visible()["web"].Content)
	assert.Equal(t, 3, m.Datasets())
}

func TestModelFollowsReports(t *testing.T) {
	m := newModel(t)
	m.Put("other", Snapshot{active, "base", nil, "o;"})
	m.Committed("saved", "other", Snapshot{committed, "base", nil, "s;"})
	require.NoError(t, m.Create(active, "child", "saved", nil))
	assert.Equal(t, "s;", m.Visible()["child"].Content)
	m.Put("child", Snapshot{active, "saved", map[string]string{"a": "1"}, "c;"})
	assert.Equal(t, "1", m.Visible()["child"].Labels["a"])

	m.Removed("child")
	mark := m.Mark()
	m.Removed("saved")
	m.Written(mark)
	m.Crash()
	assert.Equal(t, []string{"base", "saved", "web"}, m.Names(), "the removal after the mark may be lost")
	m.Forget("saved")
	m.Crash()
	assert.Equal(t, []string{"base", "web"}, m.Names())
}

func TestRecordsHaveShortLabelsAndNoContent(t *testing.T) {
	long, other := strings.Repeat("x", 5000), strings.Repeat("x", 4999)+"y"
	of := func(value string) Snapshot {
		return Snapshot{active, "p", map[string]string{"short": "1", "long": value}, "content"}.Record()
	}
	assert.Equal(t, of(long), of(long))
	assert.NotEqual(t, of(long), of(other))
	assert.Less(t, len(of(long).Labels["long"]), 100)
	assert.Empty(t, of(long).Content)
	assert.Equal(t, of(long), Listed(snapshots.Info{Kind: active, Name: "n", Parent: "p", Labels: map[string]string{"short": "1", "long": long}}))
}

func TestErrorKindFindsTheKindOfTheInterface(t *testing.T) {
	wrapped, other := fmt.Errorf("x: %w", errdefs.ErrNotFound), errors.New("other")
	assert.Equal(t, errdefs.ErrNotFound, ErrorKind(wrapped))
	assert.Equal(t, other, ErrorKind(other))
	assert.NoError(t, ErrorKind(nil))
	for err, want := range map[error]bool{wrapped: true, errdefs.ErrNotFound: true, other: false, nil: true} {
		assert.Equal(t, want, HasKind(err), "%v", err)
	}
}
