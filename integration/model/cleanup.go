package model

import (
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// Cleanup follows Cleanup, which writes the journal first.
func (m *Model) Cleanup() { m.evict(m.config.KeepCached) }

// Reclaim follows a reclaim, which destroys everything that can be spared.
func (m *Model) Reclaim() { m.evict(false) }

func (m *Model) evict(keep bool) {
	m.Written(m.Mark())
	isUsed := func(t *template) bool {
		for _, s := range m.snaps {
			if s.template == t {
				return true
			}
		}
		return slices.ContainsFunc(m.templates, func(child *template) bool { return child.parent == t })
	}
	isGarbage := func(t *template) bool { return !isUsed(t) && (t.layer == "" || !keep) }
	for i := slices.IndexFunc(m.templates, isGarbage); i >= 0; i = slices.IndexFunc(m.templates, isGarbage) {
		if layer := m.templates[i].layer; layer != "" {
			delete(m.layers, layer)
		}
		m.templates = slices.Delete(m.templates, i, i+1)
	}
}

// Restart follows the stop and the start of a snapshotter: the stop writes the journal.
func (m *Model) Restart() { m.Written(m.Mark()) }

// Crash follows a crash before the journal was written. It restores the removed snapshots,
// unless their names are in use again.
func (m *Model) Crash() {
	for name, all := range m.removed {
		if last := len(all) - 1; m.snaps[name] == nil && last >= 0 {
			m.snaps[name] = all[last].entry
			m.removed[name] = all[:last]
		}
	}
	for name, s := range m.snaps {
		if p := m.snaps[s.Parent]; s.Parent != "" && (p == nil || p.Kind != snapshots.KindCommitted) {
			orphan := *s
			orphan.Parent = ""
			m.snaps[name] = &orphan
		}
	}
}
