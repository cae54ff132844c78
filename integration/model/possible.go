package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// Op is an operation of a snapshotter or of a differ.
type Op string

// The operations.
const (
	Prepare Op = "prepare"
	View    Op = "view"
	Commit  Op = "commit"
	Update  Op = "update"
	Remove  Op = "remove"
	Cleanup Op = "cleanup"
	Unpack  Op = "unpack" // of a layer into Key, which is removed if the layer does not fit
)

// Request is an operation with its arguments, as far as a crash needs them.
type Request struct {
	Op Op
	// Key is the snapshot that the operation creates, changes, removes or commits.
	Key string
	// Name is the snapshot that a Commit creates. A Prepare creates it instead of Key if the
	// layer exists; "" if it cannot.
	Name string
	// Snapshot is that of Key after the operation, or of Name after a Commit.
	Snapshot Snapshot
	// Reused is the snapshot of Name after a Prepare.
	Reused Snapshot
}

// Possible has the snapshots that a snapshotter may show after a crash: an interrupted
// operation has happened or has not, and a removal that is not in the pool may be lost.
type Possible struct {
	names       map[string]*outcomes
	interrupted []interrupted
}

// outcomes are the possible snapshots of a name.
type outcomes struct {
	snapshots []Snapshot
	isAbsent  bool // whether the name may have no snapshot
	// removed is the last snapshot of the name whose removal may not be in the pool. A crash
	// restores it if the name has no newer one.
	removed *Snapshot
}

// interrupted is an operation after which one name has a snapshot instead of another one.
type interrupted struct {
	op     Op
	key    string
	before Snapshot // of key: before a Commit or an Unpack, after a Prepare
	name   string
	// needsOne: key or name has its snapshot. They never both have.
	needsOne bool
}

// Possible returns what may be found after a crash now, while no operation is in progress.
func (m *Model) Possible() *Possible {
	p := &Possible{names: make(map[string]*outcomes)}
	for name, s := range m.snaps {
		p.Found(name, s.Snapshot)
	}
	for name, all := range m.removed {
		if len(all) == 0 {
			continue
		}
		o := p.of(name)
		o.removed = &all[len(all)-1].entry.Snapshot
		if m.snaps[name] == nil {
			o.snapshots = []Snapshot{*o.removed}
		}
	}
	return p
}

// Interrupt adds an operation that the crash interrupts.
func (p *Possible) Interrupt(r Request) {
	o := p.of(r.Key)
	switch r.Op {
	case Prepare:
		o.snapshots = append(o.snapshots, r.Snapshot)
		if r.Name != "" {
			p.MayHave(r.Name, r.Reused)
			p.interrupted = append(p.interrupted, interrupted{Prepare, r.Key, r.Snapshot, r.Name, false})
		}
	case View, Update:
		o.snapshots = append(o.snapshots, r.Snapshot)
	case Commit:
		before, mayLack := o.snapshots[0], o.isAbsent
		o.snapshots, o.isAbsent = []Snapshot{before}, true
		if o.removed != nil {
			o.snapshots = append(o.snapshots, *o.removed)
		}
		created := p.of(r.Name)
		created.snapshots = append(created.snapshots, r.Snapshot)
		p.interrupted = append(p.interrupted, interrupted{Commit, r.Key, before, r.Name, !mayLack})
	case Remove:
		o.isAbsent = true
	case Unpack:
		o.isAbsent = true
		p.interrupted = append(p.interrupted, interrupted{Unpack, r.Key, o.snapshots[len(o.snapshots)-1], "", false})
	}
}

// MayHave adds the possibility that name has the snapshot s.
func (p *Possible) MayHave(name string, s Snapshot) {
	o := p.of(name)
	o.snapshots, o.isAbsent = append(o.snapshots, s), true
}

// MayLack adds the possibility that name has no snapshot, or the one before it.
func (p *Possible) MayLack(name string) {
	o := p.of(name)
	o.isAbsent = true
	if o.removed != nil {
		o.snapshots = append(o.snapshots, *o.removed)
	}
}

// Found removes all possibilities but that name has the snapshot s.
func (p *Possible) Found(name string, s Snapshot) {
	o := p.of(name)
	o.snapshots, o.isAbsent = []Snapshot{s}, false
}

// IsCertain reports whether each name has one possibility.
func (p *Possible) IsCertain() bool {
	for _, o := range p.names {
		if len(o.snapshots) > 1 || o.isAbsent && len(o.snapshots) > 0 {
			return false
		}
	}
	return true
}

func (p *Possible) of(name string) *outcomes {
	o := p.names[name]
	if o == nil {
		o = &outcomes{isAbsent: true}
		p.names[name] = o
	}
	return o
}

// Match compares the records of the found snapshots with the possible ones. It returns what
// was found, with the content that each snapshot must have, and describes what is not
// possible.
func (p *Possible) Match(found map[string]Snapshot) (matched map[string]Snapshot, wrong []string) {
	matched = make(map[string]Snapshot)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		got := found[name]
		o := p.names[name]
		if o == nil {
			wrong = append(wrong, fmt.Sprintf("%q is %s: no operation created it", name, got))
			continue
		}
		i := slices.IndexFunc(o.snapshots, got.sameRecord)
		if i < 0 {
			wrong = append(wrong, fmt.Sprintf("%q is %s: it may only be %s", name, got, o))
			continue
		}
		matched[name] = o.snapshots[i]
	}
	for _, name := range slices.Sorted(maps.Keys(p.names)) {
		if _, ok := found[name]; !ok && !p.names[name].isAbsent {
			wrong = append(wrong, fmt.Sprintf("%q does not exist: it must be %s", name, p.names[name]))
		}
	}
	for _, i := range p.interrupted {
		wrong = append(wrong, i.check(found)...)
	}
	return matched, wrong
}

// CountInterrupted counts the interrupted commits, the Prepares of layers that may have
// existed, and the unpackings: those that happened, or whose runtime was removed, and the
// others.
func (p *Possible) CountInterrupted(found map[string]Snapshot) (happened, not int) {
	for _, i := range p.interrupted {
		_, after := found[i.name]
		at, exists := found[i.key]
		if after || i.op == Prepare && exists && at.sameRecord(i.before) || i.op == Unpack && !exists {
			happened++
		} else {
			not++
		}
	}
	return happened, not
}

func (i interrupted) check(found map[string]Snapshot) []string {
	at, before := found[i.key]
	before = before && at.sameRecord(i.before)
	_, after := found[i.name]
	switch {
	case before && after:
		return []string{fmt.Sprintf("a %s was interrupted between: %q and %q exist", i.op, i.key, i.name)}
	case i.needsOne && !before && !after:
		return []string{fmt.Sprintf("a %s was interrupted between: neither %q nor %q exists", i.op, i.key, i.name)}
	}
	return nil
}

func (o *outcomes) String() string {
	var all []string
	for _, s := range o.snapshots {
		all = append(all, s.String())
	}
	if o.isAbsent {
		all = append(all, "absent")
	}
	return strings.Join(all, ", or ")
}

// Count returns how many of the snapshots have a kind.
func Count(all map[string]Snapshot, kind snapshots.Kind) (n int) {
	for _, s := range all {
		if s.Kind == kind {
			n++
		}
	}
	return n
}
