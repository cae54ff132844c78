package snapshotter

import (
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A commit makes a layer only if its name has the chain ID for which the key was prepared.
// The label overrides the key.
func TestCommitMakesALayerOnlyForTheSameChainID(t *testing.T) {
	t.Parallel()
	a, b := chain("a"), chain("b")
	for what, c := range map[string]struct {
		key   string
		label string
		name  string
		layer bool
	}{
		"label and name":              {"default/1/x", a, "default/2/" + a, true},
		"extraction and name":         {"default/1/extract-1-x " + a, "", "default/2/" + a, true},
		"both":                        {"default/1/extract-1-x " + a, a, "default/2/" + a, true},
		"without containerd's prefix": {"extract-1-x " + a, "", a, true},
		"another number":              {"default/1/extract-1-x " + a, "", "default/99/" + a, true},
		"another namespace":           {"default/1/extract-1-x " + a, "", "k8s.io/2/" + a, true},
		"label is not a chain ID":     {"default/1/extract-1-x " + a, "latest", "default/2/" + a, true},

		"name only, as userns remap does": {"default/1/remap", "", "default/2/" + a, false},
		"own id, as BuildKit does":        {"default/1/extract-1-x " + a, "", "default/2/bk-12345", false},
		"label, another name":             {"default/1/x", a, "default/2/" + b, false},
		"extraction, another name":        {"default/1/extract-1-x " + a, "", "default/2/" + b, false},
		"label against extraction":        {"default/1/extract-1-x " + a, b, "default/2/" + a, false},
		"name with a suffix":              {"default/1/extract-1-x " + a, "", "default/2/" + a + "-init", false},
		"name with a prefix":              {"default/1/extract-1-x " + a, "", "default/2/x/" + a, false},
		"upper case":                      {"default/1/x", chain("A"), "default/2/" + chain("A"), false},
		"nothing":                         {"web", "", "saved", false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			var opts []snapshots.Opt
			if c.label != "" {
				opts = append(opts, ref(c.label))
			}
			s.prepare(c.key, "", opts...)
			s.write(c.key, "x;")
			s.restart() // the target is stored in the record
			s.commit(c.name, c.key)
			dataset := s.templateOf(c.name)
			if c.layer {
				assert.Equal(t, "tank/z/storage/"+a, dataset)
			} else {
				assert.True(t, strings.HasPrefix(dataset, "tank/z/storage/opaque-"), dataset)
			}
			assert.Equal(t, "x;", s.visible()[c.name].Content)
			s.requireInvariants()
		})
	}
}

// Only the label snapshot.ref names a layer. Other labels may come from annotations.
func TestOtherLabelsDoNotNameALayer(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("x", "", snapshots.WithLabels(map[string]string{
		"containerd.io/snapshot/parent-chain-id": chain("a"), "containerd.io/snapshot/diff-id": chain("a"),
		"containerd.io/snapshot/snapshot.ref": chain("a"),
	}))
	s.commit(chain("a"), "x")
	assert.Contains(t, s.templateOf(chain("a")), "/opaque-")
}

// A containerd with a new database numbers its names from 1 again and unpacks a layer under
// a name that an old record has. AlreadyExists would mean that containerd knows the layer.
// The commit replaces the record, and its children are kept.
func TestCommitReplacesRecordOfOldDatabase(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a, b := chain("a"), chain("b")
	unpack := func(name, key, parent, chain, content string) error {
		key += " " + chain
		s.prepare(key, parent)
		s.write(key, content)
		err := s.sn.Commit(s.ctx, name+chain, key)
		if err != nil {
			s.remove(key)
		}
		return err
	}
	require.NoError(t, unpack("default/2/", "default/1/extract-1-x", "", a, "a;"))
	require.NoError(t, unpack("default/4/", "default/3/extract-2-x", "default/2/"+a, b, "b;"))
	s.prepare("default/5/old", "default/2/"+a)
	before := s.templateOf("default/2/" + a)

	require.NoError(t, unpack("default/2/", "default/1/extract-3-y", "", a, "other;"))
	assert.Equal(t, before, s.templateOf("default/2/"+a), "it joins the template")
	assert.Equal(t, "a;", s.visible()["default/2/"+a].Content)
	assert.ErrorIs(t, s.sn.Remove(s.ctx, "default/2/"+a), errdefs.ErrFailedPrecondition, "it has children of the old database")
	s.requireRecoverable()

	s.layer("taken", "", "x;")
	s.prepare("web", "")
	assert.ErrorIs(t, s.sn.Commit(s.ctx, "taken", "web"), errdefs.ErrAlreadyExists, "the name is not that of a layer")
	require.ErrorIs(t, unpack("default/4/", "default/7/extract-4-y", "", b, "b;"), errdefs.ErrAlreadyExists, "the same chain ID on another parent")
	s.remove("default/5/old", "default/4/"+b, "default/2/"+a, "taken", "web")
	s.requireInvariants()
}

// Two clients unpack one layer at the same time. The second commit adds a record, and its
// runtime becomes garbage.
func TestDuplicateCommitAddsARecord(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a := chain("a")
	s.prepare("default/1/extract-1-x "+a, "")
	s.prepare("k8s.io/2/extract-2-x "+a, "")
	s.write("default/1/extract-1-x "+a, "first;")
	s.write("k8s.io/2/extract-2-x "+a, "second;")
	s.commit("default/3/"+a, "default/1/extract-1-x "+a)
	s.commit("k8s.io/4/"+a, "k8s.io/2/extract-2-x "+a)
	assert.Equal(t, s.templateOf("default/3/"+a), s.templateOf("k8s.io/4/"+a), "one template, two records")
	assert.Equal(t, "first;", s.visible()["k8s.io/4/"+a].Content)

	s.requireInvariants()
	assert.Len(t, s.datasets(), 2, "the empty template and the layer")

	s.remove("default/3/" + a)
	s.cleanup()
	assert.Equal(t, "first;", s.visible()["k8s.io/4/"+a].Content, "the records are independent")
	s.requireInvariants()
}

// Two layers have the same chain ID on different parents. One claim must be wrong, so they
// do not share a template.
func TestLayerOnAnotherParentIsOpaque(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	p, _ := s.pull("default", "", chain("0"), "p;")
	q, _ := s.pull("default", "", chain("1"), "q;")
	on, _ := s.pull("default", p, chain("a"), "x;")
	other, unpacked := s.pull("default", q, chain("a"), "x;")
	assert.True(t, unpacked, "the layer on the other parent is not reused")
	assert.Equal(t, "p;x;", s.visible()[on].Content)
	assert.Equal(t, "q;x;", s.visible()[other].Content)
	assert.Contains(t, s.templateOf(other), "/opaque-")
	s.requireInvariants()
}

// A layer of one namespace is not unpacked again in another.
func TestNamespacesShareTemplates(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	var names []string
	for _, ns := range []string{"default", "k8s.io"} {
		parent := ""
		for _, digit := range []string{"a", "b", "c"} {
			name, unpacked := s.pull(ns, parent, chain(digit), digit+";")
			assert.Equal(t, ns == "default", unpacked, "%s in %s", digit, ns)
			parent = name
			names = append(names, name)
		}
	}
	s.cleanup()
	assert.Len(t, s.datasets(), 4)
	// Prepare returns the records of the first namespace. containerd's second namespace
	// refers to them.
	assert.Equal(t, names[:3], names[3:])
	s.prepare("k8s.io/90/web", names[5])
	assert.Equal(t, "a;b;c;", s.visible()["k8s.io/90/web"].Content)
	s.remove("k8s.io/90/web", names[2], names[1], names[0])
	s.requireInvariants()
	assert.Len(t, s.datasets(), 1)
}

// Without the label, AlreadyExists would mean that the key is taken, and the client would
// try other keys forever.
func TestLayersAreNotReusedWithoutTheLabel(t *testing.T) {
	t.Parallel()
	a := chain("a")
	s := newFixture(t)
	name, _ := s.pull("default", "", a, "x;")
	s.remove(name)
	for _, opts := range [][]snapshots.Opt{nil, {ref("latest")}, {ref("")}, {label("containerd.io/snapshot/diff-id", a)}} {
		key := s.backend("k8s.io", "extract-1-x "+a)
		s.prepare(key, "", opts...)
		s.write(key, "x;")
		s.commit(s.backend("k8s.io", a), key)
	}
	s.view("look", "", ref(a)) // a view is never an extraction
	assert.Equal(t, snapshots.KindView, s.stat("look").Kind)
	s.requireInvariants()
	assert.Len(t, s.datasets(), 2, "the commits use the cached template")
}

func TestCachedTemplatesAreReused(t *testing.T) {
	t.Parallel()
	for what, again := range map[string]func(*fixture){
		"at once":         func(*fixture) {},
		"after a cleanup": (*fixture).cleanup,
		"after a restart": (*fixture).restart,
		"after a crash":   func(s *fixture) { s.cleanup(); s.crash() },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			a, _ := s.pull("default", "", chain("a"), "a;")
			b, _ := s.pull("default", a, chain("b"), "b;")
			before := s.templates()
			s.remove(b, a)
			again(s)
			assert.Empty(t, s.walk(), "cached templates are invisible, or containerd would remove them")
			_, err := s.sn.Stat(s.ctx, a)
			assert.ErrorIs(t, err, errdefs.ErrNotFound)

			a2, unpacked := s.pull("default", "", chain("a"), "")
			assert.False(t, unpacked)
			assert.Equal(t, "default/5/"+chain("a"), a2, "the new name has the number of its key")
			b2, unpacked := s.pull("default", a2, chain("b"), "")
			assert.False(t, unpacked)
			assert.Equal(t, "a;b;", s.visible()[b2].Content)
			assert.Equal(t, a2, s.stat(b2).Parent)
			assert.Equal(t, map[string]string{snapshots.LabelSnapshotRef: chain("b")}, s.stat(b2).Labels)
			assert.Equal(t, before, s.templates())
			s.requireInvariants()
		})
	}
}

// A layer that was committed without labels has no record that containerd finds. It gets
// another record.
func TestLayerWithoutLabelGetsANewRecord(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a := chain("a")
	s.prepare("default/1/extract-1-x "+a, "")
	s.commit("default/2/"+a, "default/1/extract-1-x "+a)
	name, unpacked := s.pull("default", "", a, "")
	assert.False(t, unpacked)
	assert.ElementsMatch(t, []string{"default/2/" + a, name}, s.names())
	assert.Equal(t, s.templateOf(name), s.templateOf("default/2/"+a))
	s.requireInvariants()
}

// containerd finds a record only by the name of its parent. A pull with another record of the
// same parent template gets a record of its own.
func TestReuseMatchesTheParentsName(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a, b := chain("a"), chain("b")
	a1, _ := s.pull("default", "", a, "a;")
	b1, _ := s.pull("default", a1, b, "b;")
	// A second record of a, without a label.
	s.prepare("k8s.io/80/extract-1-x "+a, "")
	s.commit("k8s.io/81/"+a, "k8s.io/80/extract-1-x "+a)

	b2, unpacked := s.pull("k8s.io", "k8s.io/81/"+a, b, "")
	assert.False(t, unpacked)
	assert.NotEqual(t, b1, b2)
	assert.Equal(t, "k8s.io/81/"+a, s.stat(b2).Parent)
	assert.Equal(t, s.templateOf(b1), s.templateOf(b2))
	s.requireInvariants()
}

// AlreadyExists means that there is a committed snapshot that containerd finds. A containerd
// with a new database numbers from 1 again, so an old record may have the name for the new
// record.
func TestAlreadyExistsMeansContainerdFindsTheLayer(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a := chain("a")
	s.prepare("default/8/extract-1-x "+a, "")
	s.write("default/8/extract-1-x "+a, "x;")
	s.commit("default/9/"+a, "default/8/extract-1-x "+a) // without the label containerd does not find it
	_, err := s.sn.Prepare(s.ctx, "default/9/extract-7-y "+a, "", ref(a))
	if err != nil {
		require.ErrorIs(t, err, errdefs.ErrAlreadyExists)
		assert.NotEmpty(t, s.findCommitted("", a), "AlreadyExists, and containerd finds no layer: its pull fails")
	}
	s.requireInvariants()
}

// A key may be equal to the name of a dataset: the locks are separate.
func TestKeyMayBeADatasetsName(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.pull("default", "", chain("a"), "a;")
	key := "tank/z/storage/" + chain("a")
	done := make(chan error, 1)
	go func() {
		_, err := s.sn.Prepare(s.ctx, key, "", ref(chain("a")))
		done <- err
	}()
	select {
	case err := <-done:
		assert.ErrorIs(t, err, errdefs.ErrAlreadyExists)
	case <-time.After(3 * time.Second):
		t.Fatal("Prepare waits for a lock that it holds")
	}
}
