package snapshotter

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// model is a simple model of a snapshotter, without pool and locks. It has templates only
// to know which layers are shared.
type model struct {
	keep   bool // whether it keeps cached layers
	snaps  map[string]*modelSnap
	limbo  map[string][]*modelSnap // removed, perhaps only in the journal; newest last
	layers map[string]*modelTemplate
	all    []*modelTemplate
	empty  *modelTemplate
}

type modelSnap struct {
	seen
	name     string
	target   string
	template *modelTemplate // the template that it shows, or its origin
	standIn  bool           // a stand-in for the layer of template
}

type modelTemplate struct {
	layer   string // chain ID, "" for an opaque template
	content string
	parent  *modelTemplate
}

func newModel(keep bool) *model {
	m := &model{keep: keep, snaps: make(map[string]*modelSnap), limbo: make(map[string][]*modelSnap), layers: make(map[string]*modelTemplate)}
	m.empty = &modelTemplate{}
	return m
}

// visible returns what clients should see.
func (m *model) visible() map[string]seen {
	all := make(map[string]seen)
	for name, s := range m.snaps {
		all[name] = s.seen
	}
	return all
}

func (m *model) children(name string) (n int) {
	for _, s := range m.snaps {
		if s.Parent == name {
			n++
		}
	}
	return n
}

func (m *model) create(kind snapshots.Kind, key, parent string, labels map[string]string) error {
	if m.snaps[key] != nil {
		return errdefs.ErrAlreadyExists
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
	s := &modelSnap{seen{kind, parent, labels, from.content}, key, "", from, false}
	ref := labels[snapshots.LabelSnapshotRef]
	if kind == snapshots.KindActive {
		s.target, _ = layout.ExtractTarget(layout.ClientName(key))
		if layout.IsChainID(ref) {
			s.target = ref
		}
	}
	if t := m.layers[ref]; kind == snapshots.KindActive && t != nil && t.parent == from {
		switch labels[ReuseLabel] {
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

// reuse reports whether containerd finds a record of the layer. If there is none, reuse
// adds one if its name is free.
func (m *model) reuse(key, parent, ref string, labels map[string]string, t *modelTemplate) bool {
	for _, s := range m.snaps {
		if s.template == t && s.Kind == snapshots.KindCommitted && s.Parent == parent && s.Labels[snapshots.LabelSnapshotRef] == ref {
			return true
		}
	}
	name := strings.TrimSuffix(key, layout.ClientName(key)) + ref
	if m.snaps[name] != nil {
		return false
	}
	m.snaps[name] = &modelSnap{seen{snapshots.KindCommitted, parent, labels, t.content}, name, "", t, false}
	return true
}

func (m *model) commit(name, key string, labels map[string]string) error {
	s := m.snaps[key]
	switch {
	case s == nil:
		return errdefs.ErrNotFound
	case s.Kind != snapshots.KindActive:
		return errdefs.ErrFailedPrecondition
	case m.snaps[name] != nil && m.snaps[name].Kind != snapshots.KindCommitted:
		return errdefs.ErrAlreadyExists
	}
	t := &modelTemplate{content: s.Content, parent: s.template}
	if s.standIn {
		if layout.ClientName(name) != s.target {
			return errdefs.ErrFailedPrecondition
		}
		t = s.template
	} else if s.target != "" && layout.ClientName(name) == s.target {
		if is := m.layers[s.target]; is == nil {
			t.layer = s.target
		} else if is.parent == s.template {
			t = is
		}
	}
	if taken := m.snaps[name]; taken != nil && taken.template != t {
		return errdefs.ErrAlreadyExists
	}
	if t.layer != "" {
		m.layers[t.layer] = t
	}
	if !slices.Contains(m.all, t) {
		m.all = append(m.all, t)
	}
	delete(m.snaps, key)
	m.snaps[name] = &modelSnap{seen{snapshots.KindCommitted, s.Parent, labels, t.content}, name, "", t, false}
	return nil
}

func (m *model) remove(key string) error {
	if m.snaps[key] == nil {
		return nil
	}
	if m.children(key) > 0 {
		return errdefs.ErrFailedPrecondition
	}
	m.limbo[key] = append(m.limbo[key], m.snaps[key])
	delete(m.snaps, key)
	return nil
}

func (m *model) update(name string, labels map[string]string, field string) error {
	s := m.snaps[name]
	if s == nil {
		return errdefs.ErrNotFound
	}
	updated := maps.Clone(labels)
	if field != "" {
		updated = maps.Clone(s.Labels)
		if updated == nil {
			updated = make(map[string]string)
		}
		if value, given := labels[field]; given {
			updated[field] = value
		} else {
			delete(updated, field)
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

// write appends text to an active snapshot.
func (m *model) write(key, text string) { m.snaps[key].Content += text }

// cleanup removes what a cleanup destroys. The journal is written by then.
func (m *model) cleanup() { m.evict(m.keep) }

// Reclaim removes what a reclaim destroys.
func (m *model) reclaimSpace() { m.evict(false) }

func (m *model) evict(keep bool) {
	clear(m.limbo)
	isNeeded := func(t *modelTemplate) bool {
		for _, s := range m.snaps {
			if s.template == t {
				return true
			}
		}
		return slices.ContainsFunc(m.all, func(child *modelTemplate) bool { return child.parent == t })
	}
	for again := true; again; {
		again = false
		for i, t := range m.all {
			if isNeeded(t) || t.layer != "" && keep {
				continue
			}
			if t.layer != "" {
				delete(m.layers, t.layer)
			}
			m.all = slices.Delete(m.all, i, i+1)
			again = true
			break
		}
	}
}

// crash restores removed snapshots whose removal was not written, unless the name is in use
// again.
func (m *model) crash() {
	for name, removed := range m.limbo {
		if last := len(removed) - 1; m.snaps[name] == nil && last >= 0 {
			m.snaps[name] = removed[last]
			m.limbo[name] = removed[:last]
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

// datasets returns the number of datasets after a cleanup, including the empty template.
func (m *model) datasets() int {
	n := 1 + len(m.all)
	for _, s := range m.snaps {
		if s.Kind == snapshots.KindActive {
			n++
		}
	}
	return n
}

// kindOf returns the errdefs kind of an error, for comparison.
func kindOf(err error) error {
	for _, kind := range []error{
		errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition, errdefs.ErrInvalidArgument, errdefs.ErrResourceExhausted,
	} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return err
}
