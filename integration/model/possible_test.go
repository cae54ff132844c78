package model

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// After a crash without an operation in progress, only the removals that are not in the pool
// may be lost.
func TestPossibleSnapshotsAreThoseOfTheModel(t *testing.T) {
	m := newModel(t)
	before := m.Visible()
	assert.True(t, m.Possible().IsCertain())
	matched, wrong := m.Possible().Match(Records(before))
	assert.Empty(t, wrong)
	assert.Empty(t, Differences(before, matched), "a match has the content that must be found")

	require.NoError(t, errors.Join(m.Remove("web"), m.Remove("base")))
	assert.False(t, m.Possible().IsCertain())
	for what, found := range map[string]map[string]Snapshot{"both lost": before, "none lost": {}, "one lost": {"base": before["base"]}} {
		_, wrong := m.Possible().Match(found)
		assert.Empty(t, wrong, what)
	}
	m.Restart()
	_, wrong = m.Possible().Match(before)
	assert.Len(t, wrong, 2, "the removals are in the pool")
}

func TestInterruptedCommitLeavesOneOfTwoSnapshots(t *testing.T) {
	m := newModel(t)
	key, name, base := m.Visible()["web"], Snapshot{committed, "base", nil, "b;w;"}, m.Visible()["base"]
	for what, c := range map[string]struct {
		found          map[string]Snapshot
		happened, fine bool
	}{
		"before":  {map[string]Snapshot{"base": base, "web": key}, false, true},
		"after":   {map[string]Snapshot{"base": base, "saved": name}, true, true},
		"both":    {map[string]Snapshot{"base": base, "web": key, "saved": name}, true, false},
		"neither": {map[string]Snapshot{"base": base}, false, false},
		"another": {map[string]Snapshot{"base": base, "saved": {view, "base", nil, ""}}, true, false},
	} {
		p := m.Possible()
		p.Interrupt(Request{Op: Commit, Key: "web", Name: "saved", Snapshot: name})
		_, wrong := p.Match(c.found)
		assert.Equal(t, c.fine, len(wrong) == 0, "%s: %q", what, wrong)
		happened, not := p.CountInterrupted(c.found)
		assert.Equal(t, c.happened, happened == 1, what)
		assert.Equal(t, 1, happened+not, what)
	}
}

func TestWhatWasFoundIsTheOnlyPossibility(t *testing.T) {
	m := newModel(t)
	web := m.Visible()["web"]
	p := m.Possible()
	p.Interrupt(Request{Op: Remove, Key: "web"})
	p.MayHave("reused", Snapshot{committed, "", nil, "l;"})
	p.MayLack("base")
	for _, found := range []map[string]Snapshot{{}, m.Visible()} {
		_, wrong := p.Match(found)
		assert.Empty(t, wrong)
	}
	p.Found("web", web)
	_, wrong := p.Match(nil)
	assert.Len(t, wrong, 1, "it must be found again: %q", wrong)
}
