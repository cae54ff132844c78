package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The kinds of snapshots.
const (
	Active    = "active"
	Viewed    = "view"
	Committed = "committed"
)

// Match holds what was found against the book. It returns what was found with
// the hash that each committed snapshot is to have, and what is wrong, nothing
// where all is well. An operation that was cut off has happened or it has not.
func (b *Book) Match(found map[string]Snap) (matched map[string]Snap, wrong []string) {
	matched = make(map[string]Snap)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		got := found[name]
		s := b.names[name]
		if s == nil {
			wrong = append(wrong, fmt.Sprintf("%q is %s: no note asks for it", name, got))
			continue
		}
		i := slices.IndexFunc(s.may, got.sameRecord)
		if i < 0 {
			wrong = append(wrong, fmt.Sprintf("%q is %s: it may only be %s", name, got, s))
			continue
		}
		matched[name] = s.may[i]
	}
	for _, name := range slices.Sorted(maps.Keys(b.names)) {
		if _, ok := found[name]; !ok && !b.names[name].absent {
			wrong = append(wrong, fmt.Sprintf("%q is not there: it must be %s", name, b.names[name]))
		}
	}
	for _, p := range b.pairs {
		wrong = append(wrong, p.check(found)...)
	}
	return matched, wrong
}

// CutOff counts the commits, the prepares of layers that may have been there, and
// the unpackings that the power cut off: those of which something was found, or
// whose runtime was thrown away, and the others.
func (b *Book) CutOff(found map[string]Snap) (happened, not int) {
	for _, p := range b.pairs {
		_, after := found[p.name]
		at, prepared := found[p.key]
		if after || p.op == Prepare && prepared && at.sameRecord(p.snap) || p.op == Unpack && !prepared {
			happened++
		} else {
			not++
		}
	}
	return happened, not
}

func (p pair) check(found map[string]Snap) []string {
	at, before := found[p.key]
	before = before && at.sameRecord(p.snap)
	_, after := found[p.name]
	switch {
	case before && after:
		return []string{fmt.Sprintf("a %s was cut off between: %q is there and %q is too", p.op, p.key, p.name)}
	case p.mustHave && !before && !after:
		return []string{fmt.Sprintf("a %s was cut off between: neither %q is there nor %q", p.op, p.key, p.name)}
	}
	return nil
}

func (s *state) String() string {
	var all []string
	for _, snap := range s.may {
		all = append(all, snap.String())
	}
	if s.absent {
		all = append(all, "nothing")
	}
	return strings.Join(all, ", or ")
}
