package model

import (
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// Config has the settings of a snapshotter that change what clients see.
type Config struct {
	KeepCached bool   // whether a cleanup keeps cached layers
	ReuseLabel string // the label that requests a mode of reuse
}

// Model has the snapshots that clients see. Its methods are not safe for concurrent use.
type Model struct {
	config    Config
	snaps     map[string]*entry
	removed   map[string][]removal // perhaps only in the journal; newest last
	removals  int                  // how many snapshots were removed
	layers    map[string]*template // by chain ID
	templates []*template          // without the empty one
	empty     *template
}

// entry is a snapshot with what clients do not see. It does not change.
type entry struct {
	Snapshot
	target   string    // the chain ID of the layer that is unpacked into it, or ""
	template *template // the template that it shows, or its origin
	standIn  bool      // a stand-in for the layer of template
}

type template struct {
	layer   string // chain ID, "" for an opaque template
	content string
	parent  *template
}

type removal struct {
	entry  *entry
	serial int
}

// New returns a model of an empty snapshotter.
func New(config Config) *Model {
	return &Model{
		config: config, empty: &template{},
		snaps: make(map[string]*entry), removed: make(map[string][]removal), layers: make(map[string]*template),
	}
}

// Clone returns a copy.
func (m *Model) Clone() *Model {
	c := *m
	c.snaps, c.layers, c.templates = maps.Clone(m.snaps), maps.Clone(m.layers), slices.Clone(m.templates)
	c.removed = make(map[string][]removal, len(m.removed))
	for name, all := range m.removed {
		c.removed[name] = slices.Clone(all)
	}
	return &c
}

// Visible returns what clients see of all snapshots.
func (m *Model) Visible() map[string]Snapshot {
	all := make(map[string]Snapshot, len(m.snaps))
	for name, s := range m.snaps {
		all[name] = s.Snapshot
	}
	return all
}

// Get returns a snapshot.
func (m *Model) Get(name string) (Snapshot, bool) {
	s := m.snaps[name]
	if s == nil {
		return Snapshot{}, false
	}
	return s.Snapshot, true
}

// Names returns the sorted names of the snapshots of some kinds, or of all if no kind is
// given.
func (m *Model) Names(kinds ...snapshots.Kind) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.snaps)) {
		if len(kinds) == 0 || slices.Contains(kinds, m.snaps[name].Kind) {
			names = append(names, name)
		}
	}
	return names
}

// Len returns the number of snapshots.
func (m *Model) Len() int { return len(m.snaps) }

// Target returns the chain ID of the layer that is unpacked into a snapshot, or "".
func (m *Model) Target(key string) string {
	if s := m.snaps[key]; s != nil {
		return s.target
	}
	return ""
}

// Layer returns the name of a committed snapshot that has the name of a layer, if there is
// one.
func (m *Model) Layer(chain string) (name string, ok bool) {
	for _, name := range m.Names(snapshots.KindCommitted) {
		if layout.ClientName(name) == chain {
			return name, true
		}
	}
	return "", false
}

// Datasets returns the number of datasets after a cleanup, including the empty template.
func (m *Model) Datasets() int { return 1 + len(m.templates) + len(m.Names(snapshots.KindActive)) }

func (m *Model) hasChildren(name string) bool {
	for _, s := range m.snaps {
		if s.Parent == name {
			return true
		}
	}
	return false
}

// Create follows Prepare and View.
func (m *Model) Create(kind snapshots.Kind, key, parent string, labels map[string]string) error {
	if old := m.snaps[key]; old != nil {
		if old.Kind == snapshots.KindCommitted || layout.Namespace(key) == "" {
			return errdefs.ErrAlreadyExists
		}
		delete(m.snaps, key) // see Aside
	}
	from := m.empty
	if parent != "" {
		p := m.snaps[parent]
		if p == nil {
			return errdefs.ErrNotFound
		}
		if p.Kind != snapshots.KindCommitted {
			return errdefs.ErrInvalidArgument
		}
		from = p.template
	}
	s := &entry{Snapshot: Snapshot{kind, parent, labels, from.content}, template: from, target: targetOf(kind, key, labels)}
	ref := labels[snapshots.LabelSnapshotRef]
	if t := m.layers[ref]; kind == snapshots.KindActive && t != nil && t.parent == from {
		switch labels[m.config.ReuseLabel] {
		case "off":
		case "fetch":
			if from == m.empty || from.layer != "" {
				s.Content, s.template, s.standIn = t.content, t, true
			}
		default:
			if m.reuse(key, parent, ref, labels, t) {
				return errdefs.ErrAlreadyExists
			}
		}
	}
	m.snaps[key] = s
	return nil
}

// Aside is part of the new name of a snapshot whose key containerd uses for another one: the
// old snapshot is renamed and then is not in the model, because its name has a random part.
const Aside = "-unknown-to-containerd-"

// targetOf returns the chain ID of the layer that is unpacked into a snapshot, or "".
func targetOf(kind snapshots.Kind, key string, labels map[string]string) string {
	if kind != snapshots.KindActive {
		return ""
	}
	if ref := labels[snapshots.LabelSnapshotRef]; layout.IsChainID(ref) {
		return ref
	}
	target, _ := layout.ExtractTarget(layout.ClientName(key))
	return target
}

// reuse reports whether containerd finds a record of the layer. If there is none, reuse
// adds one if its name is free.
func (m *Model) reuse(key, parent, ref string, labels map[string]string, t *template) bool {
	for _, s := range m.snaps {
		if s.template == t && s.Kind == snapshots.KindCommitted && s.Parent == parent && s.Labels[snapshots.LabelSnapshotRef] == ref {
			return true
		}
	}
	name := ReusedName(key, ref)
	if m.snaps[name] != nil {
		return false
	}
	m.snaps[name] = &entry{Snapshot: Snapshot{snapshots.KindCommitted, parent, labels, t.content}, template: t}
	return true
}

// ReusedName returns the name of the record that a Prepare of an existing layer adds.
func ReusedName(key, chain string) string {
	return strings.TrimSuffix(key, layout.ClientName(key)) + chain
}

// Commit follows Commit.
func (m *Model) Commit(name, key string, labels map[string]string) error {
	s := m.snaps[key]
	switch {
	case s == nil:
		return errdefs.ErrNotFound
	case s.Kind != snapshots.KindActive:
		return errdefs.ErrFailedPrecondition
	case m.snaps[name] != nil && m.snaps[name].Kind != snapshots.KindCommitted:
		return errdefs.ErrAlreadyExists
	case s.standIn && layout.ClientName(name) != s.target:
		return errdefs.ErrFailedPrecondition
	}
	t := m.templateOf(s, name)
	if taken := m.snaps[name]; taken != nil && taken.template != t {
		return errdefs.ErrAlreadyExists
	}
	if t.layer != "" {
		m.layers[t.layer] = t
	}
	if !slices.Contains(m.templates, t) {
		m.templates = append(m.templates, t)
	}
	delete(m.snaps, key)
	m.snaps[name] = &entry{Snapshot: Snapshot{snapshots.KindCommitted, s.Parent, labels, t.content}, template: t}
	return nil
}

// templateOf returns the template of the snapshot s that is committed as name: an existing
// layer or a new template.
func (m *Model) templateOf(s *entry, name string) *template {
	if s.standIn {
		return s.template
	}
	t := &template{content: s.Content, parent: s.template}
	if s.target == "" || layout.ClientName(name) != s.target {
		return t
	}
	if existing := m.layers[s.target]; existing == nil {
		t.layer = s.target
	} else if existing.parent == s.template {
		return existing
	}
	return t
}

// Remove follows Remove.
func (m *Model) Remove(name string) error {
	if m.snaps[name] == nil {
		return nil
	}
	if m.hasChildren(name) {
		return errdefs.ErrFailedPrecondition
	}
	m.Removed(name)
	return nil
}

// Update follows Update. It knows the fields that name one label.
func (m *Model) Update(name string, labels map[string]string, fields ...string) error {
	s := m.snaps[name]
	if s == nil {
		return errdefs.ErrNotFound
	}
	updated := maps.Clone(labels)
	if len(fields) > 0 {
		updated = maps.Clone(s.Labels)
	}
	for _, field := range fields {
		key := strings.TrimPrefix(field, "labels.")
		if value, ok := labels[key]; !ok {
			delete(updated, key)
		} else if updated == nil {
			updated = map[string]string{key: value}
		} else {
			updated[key] = value
		}
	}
	if len(updated) == 0 {
		updated = nil
	}
	changed := *s
	changed.Labels = updated
	m.snaps[name] = &changed
	return nil
}

// Write appends text to the content of an active snapshot.
func (m *Model) Write(key, text string) {
	changed := *m.snaps[key]
	changed.Content += text
	m.snaps[key] = &changed
}
