package ledger

import (
	"fmt"
	"maps"
	"slices"
)

// Book is what the notes add up to.
type Book struct {
	names  map[string]*state
	asked  map[int]Note              // of this machine's life, without a result
	before map[int]map[string]uint64 // for each Cleanup asked: the removals it will write
	pairs  []pair
	layers map[string]string // the hash of each layer, by chain ID
	seen   map[string]Snap   // since the machine began
	clock  uint64
}

// state is what may be under a name.
type state struct {
	may    []Snap
	absent bool // nothing may be there
	// ghost was removed, and the pool may not know yet: where nothing newer
	// hides it, a cut brings it back. since is when it was removed.
	ghost *Snap
	since uint64
}

// pair is an operation that was cut off and turns one name into another.
type pair struct {
	op       string
	key      string
	snap     Snap // under key before a commit, or after a prepare
	name     string
	mustHave bool // one of the two is there; never both
}

// NewBook returns an empty book.
func NewBook() *Book {
	return &Book{
		names: make(map[string]*state), asked: make(map[int]Note), before: make(map[int]map[string]uint64),
		layers: make(map[string]string), seen: make(map[string]Snap),
	}
}

// Take adds a note.
func (b *Book) Take(n Note) error {
	b.clock++
	switch n.Note {
	case Begins:
		for _, id := range slices.Sorted(maps.Keys(b.asked)) {
			b.cutOff(b.asked[id])
		}
		clear(b.asked)
		clear(b.before)
		clear(b.seen)
	case Asks:
		return b.ask(n)
	case Returned:
		return b.result(n)
	case Sees:
		return b.see(n)
	case Settled:
		clear(b.names)
		b.pairs = nil
		for name, snap := range b.seen {
			b.set(name, snap)
		}
	}
	return nil
}

func (b *Book) ask(n Note) error {
	b.asked[n.ID] = n
	switch {
	case n.Op == Cleanup:
		b.before[n.ID] = make(map[string]uint64)
		for name, s := range b.names {
			if s.ghost != nil {
				b.before[n.ID][name] = s.since
			}
		}
	case n.Op == Commit && n.Layer != "":
		if known, ok := b.layers[n.Layer]; ok && known != n.Snap.Hash {
			return fmt.Errorf("layer %s is to have two contents: %s and %s", n.Layer, known, n.Snap.Hash)
		}
		b.layers[n.Layer] = n.Snap.Hash
	}
	return nil
}

func (b *Book) result(n Note) error {
	asked, ok := b.asked[n.ID]
	if !ok {
		return fmt.Errorf("result %d of nothing", n.ID)
	}
	delete(b.asked, n.ID)
	switch {
	case n.Failed == "":
		b.done(asked)
	case asked.Op == Unpack:
		b.state(asked.Key).absent = true
	case n.Failed == Exists && asked.Op == Prepare && asked.Name != "":
		// The layer has a record: under the name that was foretold, or
		// another worker's. The load looks, and says what it sees.
		s := b.state(asked.Name)
		s.may, s.absent = append(s.may, b.reused(asked)), true
	}
	return nil
}

// done is what an operation leads to that ended without an error.
func (b *Book) done(n Note) {
	switch n.Op {
	case Prepare, View, Update:
		b.set(n.Key, *n.Snap)
	case Commit:
		b.usedUp(n.Key)
		b.set(n.Name, *n.Snap)
	case Remove:
		s := b.state(n.Key)
		s.absent = true
		if len(s.may) > 0 {
			ghost := s.may[len(s.may)-1]
			s.ghost, s.since = &ghost, b.clock
		}
	case Cleanup:
		for name, since := range b.before[n.ID] {
			if s := b.names[name]; s != nil && s.since == since {
				b.forget(s)
			}
		}
		delete(b.before, n.ID)
	}
}

// forget drops the ghost that a Cleanup has written to the pool.
func (b *Book) forget(s *state) {
	if s.absent {
		s.may = slices.DeleteFunc(s.may, func(m Snap) bool { return m == *s.ghost })
	}
	s.ghost = nil
}

// cutOff is what an operation leads to that has no result.
func (b *Book) cutOff(n Note) {
	switch n.Op {
	case Prepare:
		s := b.state(n.Key)
		s.may = append(s.may, *n.Snap)
		if n.Name != "" {
			other := b.state(n.Name)
			other.may, other.absent = append(other.may, b.reused(n)), true
			b.pairs = append(b.pairs, pair{Prepare, n.Key, *n.Snap, n.Name, false})
		}
	case View, Update:
		s := b.state(n.Key)
		s.may = append(s.may, *n.Snap)
	case Commit:
		s := b.state(n.Key)
		before := s.may[len(s.may)-1]
		b.usedUp(n.Key)
		s.may = append(s.may, before)
		made := b.state(n.Name)
		made.may = append(made.may, *n.Snap)
		b.pairs = append(b.pairs, pair{Commit, n.Key, before, n.Name, true})
	case Remove:
		b.state(n.Key).absent = true
	case Unpack:
		s := b.state(n.Key)
		s.absent = true
		b.pairs = append(b.pairs, pair{Unpack, n.Key, s.may[len(s.may)-1], "", false})
	}
}

// reused is the record that a prepare makes of a layer that is there.
func (b *Book) reused(n Note) Snap {
	return Snap{Kind: Committed, Parent: n.Snap.Parent, Labels: n.Snap.Labels, Hash: b.layers[n.Layer]}
}

// usedUp is what a commit leaves under its key: nothing, or what was removed
// before the key was used again.
func (b *Book) usedUp(key string) {
	s := b.state(key)
	s.may, s.absent = nil, true
	if s.ghost != nil {
		s.may = []Snap{*s.ghost}
	}
}

func (b *Book) see(n Note) error {
	if n.Snap == nil {
		*b.state(n.Name) = state{absent: true}
		return nil
	}
	if n.Snap.Kind == Committed && n.Snap.Hash == "" {
		return fmt.Errorf("it is not known what %q is to have", n.Name)
	}
	b.seen[n.Name] = *n.Snap
	b.set(n.Name, *n.Snap)
	return nil
}

// set is certain: snap stands under name. What was removed before is hidden
// by it and stays a ghost.
func (b *Book) set(name string, snap Snap) {
	s := b.state(name)
	s.may, s.absent = []Snap{snap}, false
}

func (b *Book) state(name string) *state {
	s := b.names[name]
	if s == nil {
		s = &state{absent: true}
		b.names[name] = s
	}
	return s
}

// Layers returns the hash of every layer that a note names.
func (b *Book) Layers() map[string]string { return maps.Clone(b.layers) }
