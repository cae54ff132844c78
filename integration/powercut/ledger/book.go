package ledger

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/integration/model"
)

// Book derives from the notes what the snapshotter must show.
type Book struct {
	model *model.Model
	// possible is what may be found after a cut, until it is known what was found. It is
	// nil if the model is exact.
	possible *model.Possible
	found    map[string]model.Snapshot // since the machine began

	// unsynced has the extractions whose Prepare has returned and is perhaps not durable: the
	// log of the base is not synchronised for it. The next change that is makes it durable.
	unsynced map[string]bool
	before   map[int][]string // the extractions in unsynced when each operation was asked for

	asked    map[int]Note // of this machine, without a result
	marks    map[int]int  // the removals that each Cleanup without a result will write
	doubtful map[string]Note
	layers   map[string]string // the content of each layer, by chain ID
}

// NewBook returns an empty book.
func NewBook() *Book {
	return &Book{
		model: model.New(model.Config{}), found: make(map[string]model.Snapshot),
		unsynced: make(map[string]bool), before: make(map[int][]string),
		asked: make(map[int]Note), marks: make(map[int]int), doubtful: make(map[string]Note), layers: make(map[string]string),
	}
}

// Take adds a note.
func (b *Book) Take(n Note) error {
	switch n.Note {
	case Begins:
		b.cut()
	case Asks:
		return b.ask(n)
	case Returned:
		return b.result(n)
	case Sees:
		return b.see(n)
	case Settled:
		b.model, b.possible = model.New(model.Config{}), nil
		for name, s := range b.found {
			b.model.Put(name, s)
		}
	}
	return nil
}

// cut follows a cut of the power.
func (b *Book) cut() {
	p := b.current()
	for key := range b.unsynced {
		p.MayLack(key)
	}
	for _, id := range slices.Sorted(maps.Keys(b.asked)) {
		p.Interrupt(b.request(b.asked[id]))
	}
	for name, n := range b.doubtful {
		if n.Op == model.Unpack {
			p.MayLack(name)
		} else {
			p.MayHave(name, b.reused(n))
		}
	}
	if b.possible != nil || !p.IsCertain() {
		b.possible = p
	}
	clear(b.asked)
	clear(b.marks)
	clear(b.unsynced)
	clear(b.before)
	clear(b.doubtful)
	clear(b.found)
}

// current returns what may be found if the power is cut now and no operation is in progress.
func (b *Book) current() *model.Possible {
	if b.possible != nil {
		return b.possible
	}
	return b.model.Possible()
}

func (b *Book) ask(n Note) error {
	if b.possible != nil {
		return fmt.Errorf("%s of %q before it is known what the last cut left", n.Op, n.Key)
	}
	b.asked[n.ID] = n
	b.before[n.ID] = slices.Collect(maps.Keys(b.unsynced))
	switch {
	case n.Op == model.Cleanup:
		b.marks[n.ID] = b.model.Mark()
	case n.Op == model.Commit && n.Layer != "":
		if known, ok := b.layers[n.Layer]; ok && known != n.Snap.Content {
			return fmt.Errorf("layer %s is to have two contents: %s and %s", n.Layer, known, n.Snap.Content)
		}
		b.layers[n.Layer] = n.Snap.Content
	}
	return nil
}

func (b *Book) result(n Note) error {
	asked, ok := b.asked[n.ID]
	if !ok {
		return fmt.Errorf("result %d of nothing", n.ID)
	}
	delete(b.asked, n.ID)
	before := b.before[n.ID]
	delete(b.before, n.ID)
	switch {
	case n.Failed == "":
		b.done(asked)
		b.synchronised(asked, before)
	case asked.Op == model.Unpack:
		b.doubtful[asked.Key] = asked
	case n.Failed == Exists && asked.Op == model.Prepare && asked.Name != "":
		// The layer has a record: under the name that the note has, or another worker's.
		// The load looks and notes what it sees.
		b.doubtful[asked.Name] = asked
	}
	return nil
}

// done follows an operation that returned no error.
func (b *Book) done(n Note) {
	switch n.Op {
	case model.Prepare, model.View, model.Update:
		b.model.Put(n.Key, *n.Snap)
	case model.Commit:
		b.model.Committed(n.Name, n.Key, *n.Snap)
	case model.Remove:
		b.model.Removed(n.Key)
	case model.Cleanup:
		b.model.Written(b.marks[n.ID])
		delete(b.marks, n.ID)
	}
}

// synchronised follows what an operation that returned no error makes durable besides its own
// change: the extractions that were prepared before it was asked for. A View and an Update
// synchronise the log. A Commit waits for a txg, as a Cleanup does.
func (b *Book) synchronised(n Note, before []string) {
	switch n.Op {
	case model.Prepare:
		if n.Extraction {
			b.unsynced[n.Key] = true
		}
	case model.View, model.Update, model.Commit, model.Cleanup:
		for _, key := range before {
			delete(b.unsynced, key)
		}
	}
	if n.Op == model.Commit || n.Op == model.Remove {
		delete(b.unsynced, n.Key)
	}
}

// request returns the operation of a note without a result.
func (b *Book) request(n Note) model.Request {
	r := model.Request{Op: n.Op, Key: n.Key, Name: n.Name}
	if n.Snap != nil {
		r.Snapshot = *n.Snap
	}
	if n.Op == model.Prepare && n.Name != "" {
		r.Reused = b.reused(n)
	}
	return r
}

// reused returns the record that a Prepare of an existing layer adds.
func (b *Book) reused(n Note) model.Snapshot {
	return model.Snapshot{Kind: snapshots.KindCommitted, Parent: n.Snap.Parent, Labels: n.Snap.Labels, Content: b.layers[n.Layer]}
}

func (b *Book) see(n Note) error {
	delete(b.doubtful, n.Name)
	switch {
	case n.Snap == nil && b.possible == nil:
		b.model.Forget(n.Name)
	case n.Snap == nil:
		return errors.New("a name without a snapshot is noted only after an operation")
	case n.Snap.Kind == snapshots.KindCommitted && n.Snap.Content == "":
		return fmt.Errorf("the content of %q is not known", n.Name)
	default:
		b.found[n.Name] = *n.Snap
		if b.possible != nil {
			b.possible.Found(n.Name, *n.Snap)
		} else {
			b.model.Put(n.Name, *n.Snap)
		}
	}
	return nil
}

// Match compares what was found with what may be found. See [model.Possible.Match].
func (b *Book) Match(found map[string]model.Snapshot) (matched map[string]model.Snapshot, wrong []string) {
	return b.current().Match(found)
}

// CountInterrupted counts the operations that the power cut interrupted. See
// [model.Possible.CountInterrupted].
func (b *Book) CountInterrupted(found map[string]model.Snapshot) (happened, not int) {
	return b.current().CountInterrupted(found)
}

// Layers returns the content of every layer that a note names.
func (b *Book) Layers() map[string]string { return maps.Clone(b.layers) }
