package model

import (
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// The methods of this file follow what a snapshotter reported. A test uses them if other clients
// decide the result, so that the model cannot know it.

// Put follows a report that name has the snapshot s.
func (m *Model) Put(name string, s Snapshot) {
	if old := m.snaps[name]; old != nil && old.Kind == s.Kind {
		changed := *old
		changed.Snapshot = s
		m.snaps[name] = &changed
		return
	}
	e := &entry{Snapshot: s, template: m.empty, target: targetOf(s.Kind, name, s.Labels)}
	if parent := m.snaps[s.Parent]; parent != nil {
		e.template = parent.template
	}
	if s.Kind == snapshots.KindCommitted {
		e.template = &template{content: s.Content, parent: e.template}
		m.templates = append(m.templates, e.template)
	}
	m.snaps[name] = e
}

// Committed follows a report that key was committed and that name has the snapshot s.
func (m *Model) Committed(name, key string, s Snapshot) {
	delete(m.snaps, key)
	m.Put(name, s)
}

// Removed follows a report that name was removed.
func (m *Model) Removed(name string) {
	s := m.snaps[name]
	if s == nil {
		return
	}
	m.removals++
	m.removed[name] = append(m.removed[name], removal{s, m.removals})
	delete(m.snaps, name)
}

// Forget follows a report that name has no snapshot, and that the pool has no record of it.
func (m *Model) Forget(name string) {
	delete(m.snaps, name)
	delete(m.removed, name)
}

// Mark returns a mark of all removals until now, for Written.
func (m *Model) Mark() int { return m.removals }

// Written follows a report that the removals until mark are in the pool.
func (m *Model) Written(mark int) {
	for name, all := range m.removed {
		all = slices.DeleteFunc(all, func(r removal) bool { return r.serial <= mark })
		m.removed[name] = all
	}
	maps.DeleteFunc(m.removed, func(_ string, all []removal) bool { return len(all) == 0 })
}
