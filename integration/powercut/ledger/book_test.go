package ledger

import (
	"bytes"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/model"
)

var (
	g1    = snap(snapshots.KindActive, "1", "")
	g2    = snap(snapshots.KindActive, "2", "")
	image = snap(snapshots.KindCommitted, "3", "h")
)

func snap(kind snapshots.Kind, label, content string) model.Snapshot {
	return model.Snapshot{Kind: kind, Labels: map[string]string{"n": label}, Content: content}
}

// written is a book of notes that went over a wire.
func written(t *testing.T, notes ...Note) *Book {
	t.Helper()
	var wire bytes.Buffer
	w := NewWriter(&wire)
	ids := make(map[string]int)
	for _, n := range notes {
		switch n.Note {
		case Asks:
			id, err := w.Ask(n)
			require.NoError(t, err)
			ids[string(n.Op)+n.Key] = id
		case Returned:
			n.ID = ids[string(n.Op)+n.Key]
			fallthrough
		default:
			require.NoError(t, w.Say(n))
		}
	}
	b := NewBook()
	require.NoError(t, Read(&wire, b.Take))
	return b
}

func asks(op model.Op, key string, snap *model.Snapshot) Note {
	n := Note{Note: Asks, Op: op, Key: key, Snap: snap}
	if op == model.Commit {
		n.Name = "image"
	}
	return n
}

func returned(op model.Op, key string) Note { return Note{Note: Returned, Op: op, Key: key} }

func done(op model.Op, key string, snap *model.Snapshot) []Note {
	return []Note{asks(op, key, snap), returned(op, key)}
}

func life(parts ...[]Note) []Note {
	all := []Note{{Note: Begins}}
	for _, p := range parts {
		all = append(all, p...)
	}
	return append(all, Note{Note: Begins})
}

// Each life is one of a key and of what is committed from it, then the power
// goes. Everything that may be found is listed; all else is wrong.
func TestWhatMayBeFound(t *testing.T) {
	one := func(n Note) []Note { return []Note{n} }
	prepared := done(model.Prepare, "key", &g1)
	again := done(model.Prepare, "key", &g2)
	full := Note{Note: Returned, Op: model.Unpack, Key: "key", Failed: "no room"}
	removed := done(model.Remove, "key", nil)
	extraction := func(snap *model.Snapshot) []Note {
		n := asks(model.Prepare, "key", snap)
		n.Extraction = true
		return []Note{n, returned(model.Prepare, "key")}
	}
	view := snap(snapshots.KindView, "4", "")
	viewed := append(done(model.View, "view", &view), done(model.Remove, "view", nil)...)
	viewed = append(viewed, done(model.Cleanup, "", nil)...)
	for name, c := range map[string]struct {
		notes []Note
		may   []string // of: none, g1, g2, image, and g1+image, g2+image
	}{
		"prepare cut off":                        {life(one(asks(model.Prepare, "key", &g1))), []string{"none", "g1"}},
		"prepared":                               {life(prepared), []string{"g1"}},
		"commit cut off":                         {life(prepared, one(asks(model.Commit, "key", &image))), []string{"g1", "image"}},
		"committed":                              {life(prepared, done(model.Commit, "key", &image)), []string{"image"}},
		"remove cut off":                         {life(prepared, one(asks(model.Remove, "key", nil))), []string{"none", "g1"}},
		"removed":                                {life(prepared, removed), []string{"none", "g1"}},
		"removed and cleaned up":                 {life(prepared, removed, done(model.Cleanup, "", nil)), []string{"none"}},
		"removed while a cleanup runs":           {life(prepared, one(asks(model.Cleanup, "", nil)), removed, one(returned(model.Cleanup, ""))), []string{"none", "g1"}},
		"removed and prepared again":             {life(prepared, removed, again), []string{"g2"}},
		"prepare again cut off":                  {life(prepared, removed, one(asks(model.Prepare, "key", &g2))), []string{"none", "g1", "g2"}},
		"prepared again and committed":           {life(prepared, removed, again, done(model.Commit, "key", &image)), []string{"image", "g1+image"}},
		"prepared again, commit cut off":         {life(prepared, removed, again, one(asks(model.Commit, "key", &image))), []string{"g2", "image", "g1+image"}},
		"cleaned up, commit of the next":         {life(prepared, removed, again, done(model.Cleanup, "", nil), done(model.Commit, "key", &image)), []string{"image"}},
		"prepared again and removed":             {life(prepared, removed, again, removed), []string{"none", "g2"}},
		"update cut off":                         {life(prepared, one(asks(model.Update, "key", &g2))), []string{"g1", "g2"}},
		"updated":                                {life(prepared, done(model.Update, "key", &g2)), []string{"g2"}},
		"unpacking cut off":                      {life(prepared, one(asks(model.Unpack, "key", nil))), []string{"none", "g1"}},
		"unpacked":                               {life(prepared, done(model.Unpack, "key", nil)), []string{"g1"}},
		"does not fit":                           {life(prepared, one(asks(model.Unpack, "key", nil)), one(full)), []string{"none", "g1"}},
		"does not fit, and is gone":              {life(prepared, one(asks(model.Unpack, "key", nil)), one(full), one(Note{Note: Sees, Name: "key"})), []string{"none"}},
		"extraction":                             {life(extraction(&g1)), []string{"none", "g1"}},
		"extraction, then a change":              {life(extraction(&g1), viewed), []string{"g1"}},
		"extraction during a change":             {life(one(asks(model.Update, "key", &g1)), extraction(&g1), one(returned(model.Update, "key"))), []string{"none", "g1"}},
		"extraction updated":                     {life(extraction(&g1), done(model.Update, "key", &g2)), []string{"g2"}},
		"extraction, commit cut off":             {life(extraction(&g1), one(asks(model.Commit, "key", &image))), []string{"none", "g1", "image"}},
		"extraction committed":                   {life(extraction(&g1), done(model.Commit, "key", &image)), []string{"image"}},
		"removed and extracted again":            {life(prepared, removed, extraction(&g2)), []string{"none", "g1", "g2"}},
		"settled without":                        {append(life(prepared), Note{Note: Settled}), []string{"none"}},
		"settled with":                           {append(life(prepared, removed), Note{Note: Sees, Name: "key", Snap: &g1}, Note{Note: Settled}), []string{"g1"}},
		"seen, and cut off before it is settled": {append(life(prepared, removed), Note{Note: Sees, Name: "key", Snap: &g1}, Note{Note: Begins}), []string{"g1"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := written(t, c.notes...)
			for _, what := range []string{"none", "g1", "g2", "image", "g1+image", "g2+image"} {
				matched, wrong := b.Match(parse(what))
				if contains(c.may, what) {
					assert.Empty(t, wrong, what)
					assert.Len(t, matched, len(parse(what)))
				} else {
					assert.NotEmpty(t, wrong, what)
				}
			}
		})
	}
}

func contains(all []string, what string) bool {
	for _, a := range all {
		if a == what {
			return true
		}
	}
	return false
}

// parse makes of "g1+image" what a listing would show of it.
func parse(what string) map[string]model.Snapshot {
	found := make(map[string]model.Snapshot)
	for part := range strings.SplitSeq(what, "+") {
		switch part {
		case "g1":
			found["key"] = g1
		case "g2":
			found["key"] = g2
		case "image":
			found["image"] = snap(snapshots.KindCommitted, "3", "")
		}
	}
	return found
}

func TestALayerThatIsThereIsRevivedOrPrepared(t *testing.T) {
	layer := asks(model.Commit, "key", &image)
	layer.Layer = "sha256:1"
	ask := Note{Note: Asks, Op: model.Prepare, Key: "again", Name: "reused", Layer: "sha256:1", Snap: &g2}
	reused := snap(snapshots.KindCommitted, "2", "")
	start := append(append([]Note{{Note: Begins}}, done(model.Prepare, "key", &g1)...), layer, returned(model.Commit, "key"), ask)

	cut := written(t, append(start, Note{Note: Begins})...)
	for what, c := range map[string]struct {
		found map[string]model.Snapshot
		ok    bool
	}{
		"neither":  {map[string]model.Snapshot{"image": image}, true},
		"prepared": {map[string]model.Snapshot{"image": image, "again": g2}, true},
		"reused":   {map[string]model.Snapshot{"image": image, "reused": reused}, true},
		"both":     {map[string]model.Snapshot{"image": image, "again": g2, "reused": reused}, false},
	} {
		matched, wrong := cut.Match(c.found)
		assert.Equal(t, c.ok, len(wrong) == 0, "%s: %q", what, wrong)
		happened, not := cut.CountInterrupted(c.found)
		assert.Equal(t, 1, happened+not)
		assert.Equal(t, what == "neither", not == 1, what)
		if what == "reused" {
			assert.Equal(t, "h", matched["reused"].Content)
		}
	}

	exists := Note{Note: Returned, Op: model.Prepare, Key: "again", Failed: Exists}
	unseen := written(t, append(start, exists, Note{Note: Begins})...)
	for _, found := range []map[string]model.Snapshot{{"image": image}, {"image": image, "reused": reused}} {
		_, wrong := unseen.Match(found)
		assert.Empty(t, wrong, "the layer may have another name")
	}
	_, wrong := unseen.Match(map[string]model.Snapshot{"image": image, "again": g2})
	assert.Len(t, wrong, 1, "the Prepare did not create its key: %q", wrong)

	reusedLayer := snap(snapshots.KindCommitted, "2", "h")
	saw := written(t, append(start, exists, Note{Note: Sees, Name: "reused", Snap: &reusedLayer}, Note{Note: Begins})...)
	_, wrong = saw.Match(map[string]model.Snapshot{"image": image})
	assert.Len(t, wrong, 1, "what was seen is there: %q", wrong)
	_, wrong = saw.Match(map[string]model.Snapshot{"image": image, "reused": reused})
	assert.Empty(t, wrong)
}

func TestOperationsBeforeTheStateIsKnownAreRefused(t *testing.T) {
	b := written(t, life(done(model.Prepare, "key", &g1), done(model.Remove, "key", nil))...)
	again := asks(model.Prepare, "key", &g2)
	require.Error(t, b.Take(again), "the removal may be lost")
	require.NoError(t, b.Take(Note{Note: Settled}))
	require.NoError(t, b.Take(again))
}

func TestTwoContentsOfALayerAreRefused(t *testing.T) {
	b := NewBook()
	for i, hash := range []string{"h", "other"} {
		err := b.Take(Note{Note: Asks, ID: i, Op: model.Commit, Key: "k", Name: "n", Layer: "sha256:1", Snap: &model.Snapshot{Content: hash}})
		assert.Equal(t, i == 0, err == nil, "%v", err)
	}
}

func TestALineThatWasCutOffIsNone(t *testing.T) {
	n := 0
	count := func(Note) error { n++; return nil }
	require.NoError(t, Read(strings.NewReader("{\"note\":\"begins\"}\n{\"note\":\"se"), count))
	assert.Equal(t, 1, n)
	require.Error(t, Read(strings.NewReader("no note\n"), count))
}
