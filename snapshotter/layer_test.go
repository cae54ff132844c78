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

// A commit is a layer only when the name says the same as what the key was
// prepared for; the label counts more than the key.
func TestWhatIsALayer(t *testing.T) {
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
		"the label is no chain ID":    {"default/1/extract-1-x " + a, "latest", "default/2/" + a, true},

		"name only, as userns remap does": {"default/1/remap", "", "default/2/" + a, false},
		"own id, as BuildKit does":        {"default/1/extract-1-x " + a, "", "default/2/bk-12345", false},
		"label, another name":             {"default/1/x", a, "default/2/" + b, false},
		"extraction, another name":        {"default/1/extract-1-x " + a, "", "default/2/" + b, false},
		"label against extraction":        {"default/1/extract-1-x " + a, b, "default/2/" + a, false},
		"name with more behind":           {"default/1/extract-1-x " + a, "", "default/2/" + a + "-init", false},
		"name with more before":           {"default/1/extract-1-x " + a, "", "default/2/x/" + a, false},
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
			s.restart() // what it was prepared for is not forgotten
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

// Labels from annotations are anybody's: only snapshot.ref says something.
func TestOtherLabelsNameNoLayer(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("x", "", snapshots.WithLabels(map[string]string{
		"containerd.io/snapshot/parent-chain-id": chain("a"), "containerd.io/snapshot/diff-id": chain("a"),
		"containerd.io/snapshot/snapshot.ref": chain("a"),
	}))
	s.commit(chain("a"), "x")
	assert.Contains(t, s.templateOf(chain("a")), "/opaque-")
}

// A containerd whose database is new counts its names from 1 again, and unpacks a layer
// under the name that an older record has. AlreadyExists would say that it knows the
// layer, which it does not. What stands on the name stays.
func TestACommitReplacesTheRecordOfAnOldDatabase(t *testing.T) {
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
	assert.ErrorIs(t, s.sn.Remove(s.ctx, "default/2/"+a), errdefs.ErrFailedPrecondition, "snapshots of the old database stand on it")
	s.requireRecoverable()

	s.layer("taken", "", "x;")
	s.prepare("web", "")
	assert.ErrorIs(t, s.sn.Commit(s.ctx, "taken", "web"), errdefs.ErrAlreadyExists, "a name that is not a layer's")
	require.ErrorIs(t, unpack("default/4/", "default/7/extract-4-y", "", b, "b;"), errdefs.ErrAlreadyExists, "the same chain ID on another parent")
	s.remove("default/5/old", "default/4/"+b, "default/2/"+a, "taken", "web")
	s.requireInvariants()
}

// Two clients that unpack one layer at the same time: the second commit is one
// more record, and what it extracted is trash.
func TestDuplicateCommitJoins(t *testing.T) {
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
	assert.Equal(t, "first;", s.visible()["k8s.io/4/"+a].Content, "each record stands for itself")
	s.requireInvariants()
}

// The same chain ID claimed on another parent: which claim is wrong nobody
// knows, so neither may stand for the other.
func TestALayerOnAnotherParentIsAnother(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	p, _ := s.pull("default", "", chain("0"), "p;")
	q, _ := s.pull("default", "", chain("1"), "q;")
	on, _ := s.pull("default", p, chain("a"), "x;")
	other, unpacked := s.pull("default", q, chain("a"), "x;")
	assert.True(t, unpacked, "the one on the other parent was not taken for it")
	assert.Equal(t, "p;x;", s.visible()[on].Content)
	assert.Equal(t, "q;x;", s.visible()[other].Content)
	assert.Contains(t, s.templateOf(other), "/opaque-")
	s.requireInvariants()
}

// A layer that is in use in one namespace needs no unpacking in another.
func TestTwoNamespacesShareTheirTemplates(t *testing.T) {
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
	// For its chain the first namespace's own records are found: containerd
	// points a second record of its own at them.
	assert.Equal(t, names[:3], names[3:])
	s.prepare("k8s.io/90/web", names[5])
	assert.Equal(t, "a;b;c;", s.visible()["k8s.io/90/web"].Content)
	s.remove("k8s.io/90/web", names[2], names[1], names[0])
	s.requireInvariants()
	assert.Len(t, s.datasets(), 1)
}

// Without the label AlreadyExists would only mean that the key is taken, and
// the client would try another one for ever.
func TestNoRevivalWithoutTheLabel(t *testing.T) {
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
	assert.Len(t, s.datasets(), 2, "they joined what was warm")
}

func TestWarmTemplatesAreRevived(t *testing.T) {
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
			assert.Empty(t, s.walk(), "warm is invisible, or containerd would remove it")
			_, err := s.sn.Stat(s.ctx, a)
			assert.ErrorIs(t, err, errdefs.ErrNotFound)

			a2, unpacked := s.pull("default", "", chain("a"), "")
			assert.False(t, unpacked)
			assert.Equal(t, "default/5/"+chain("a"), a2, "a name of its own, by the number of its key")
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

// A layer somebody committed without labels is there, but not by a record that
// containerd would find: it gets one.
func TestALayerWithoutALabelIsRevivedUnderANewRecord(t *testing.T) {
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

// Of two templates of one layer's record that went by with a parent of the
// same content but another name, containerd finds only its own parent's.
func TestRevivalGoesByTheParentsName(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a, b := chain("a"), chain("b")
	a1, _ := s.pull("default", "", a, "a;")
	b1, _ := s.pull("default", a1, b, "b;")
	// A second record of a, by somebody who gave no label.
	s.prepare("k8s.io/80/extract-1-x "+a, "")
	s.commit("k8s.io/81/"+a, "k8s.io/80/extract-1-x "+a)

	b2, unpacked := s.pull("k8s.io", "k8s.io/81/"+a, b, "")
	assert.False(t, unpacked)
	assert.NotEqual(t, b1, b2)
	assert.Equal(t, "k8s.io/81/"+a, s.stat(b2).Parent)
	assert.Equal(t, s.templateOf(b1), s.templateOf(b2))
	s.requireInvariants()
}

// AlreadyExists means one thing: there is a committed snapshot that containerd
// finds. A wiped containerd counts from 1 again, so the name a revived layer
// would get may be taken by a record of old.
func TestRevivalUnderATakenName(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a := chain("a")
	s.prepare("default/8/extract-1-x "+a, "")
	s.write("default/8/extract-1-x "+a, "x;")
	s.commit("default/9/"+a, "default/8/extract-1-x "+a) // no label: not findable
	_, err := s.sn.Prepare(s.ctx, "default/9/extract-7-y "+a, "", ref(a))
	if err != nil {
		require.ErrorIs(t, err, errdefs.ErrAlreadyExists)
		assert.NotEmpty(t, s.adopted("", a), "AlreadyExists, and containerd finds no layer: its pull fails")
	}
	s.requireInvariants()
}

// A client may call a snapshot as a dataset is called.
func TestAKeyLikeADatasetsName(t *testing.T) {
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
		t.Fatal("Prepare waits for a lock that it holds itself")
	}
}
