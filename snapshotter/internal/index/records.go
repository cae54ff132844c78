package index

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// RenameCandidate returns the record of the active snapshot or view that has key, or nil. It
// returns nil if key does not have containerd's form.
func (x *Index) RenameCandidate(key string) *Entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := x.records[key]
	if r == nil || x.hidden[key] || layout.Namespace(key) == "" || r.Info.Kind == snapshots.KindCommitted {
		return nil
	}
	return r
}

// Rename replaces the record old by r, which has another name.
func (x *Index) Rename(old, r *Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unlinkRecord(old)
	x.linkRecord(r)
}

// isRuntime reports whether a dataset is the runtime of an active snapshot. The caller holds
// the mutex.
func (x *Index) isRuntime(dataset string) bool {
	for _, r := range x.byDataset[dataset] {
		if r.Template != nil && r.Dataset != r.Template.Dataset() {
			return true
		}
	}
	return false
}

// OrphansOf returns the names and keys of the snapshots that lost parent.
func (x *Index) OrphansOf(parent string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var keys []string
	for key, r := range x.records {
		if r.Lost == parent {
			keys = append(keys, key)
		}
	}
	return keys
}

// linkChild makes parent the parent of a snapshot that lost it. The caller holds the mutex.
func (x *Index) linkChild(key, parent string) {
	old := x.records[key]
	if old == nil || old.Lost != parent {
		return
	}
	linked := *old
	linked.Info.Parent, linked.Lost = parent, ""
	x.linkRecord(&linked)
	x.addChild(parent)
}

// Runtime returns the runtime of an active snapshot by its ID, if there is one.
func (x *Index) Runtime(id string, idOf func(dataset string) (string, bool)) (string, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range x.records {
		if r.Info.Kind != snapshots.KindActive {
			continue
		}
		if other, ok := idOf(r.Dataset); ok && other == id {
			return r.Dataset, true
		}
	}
	return "", false
}

// Next returns the sequence number of a new record.
func (x *Index) Next() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.seq++
	return x.seq
}

// Get returns the record of a name or key, or an error if there is none or it is hidden.
func (x *Index) Get(name string) (*Entry, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.getLocked(name)
}

func (x *Index) getLocked(name string) (*Entry, error) {
	if r := x.records[name]; r != nil && !x.hidden[name] {
		return r, nil
	}
	return nil, fmt.Errorf("snapshot %q: %w", name, errdefs.ErrNotFound)
}

// Taken reports whether a record has a name. It counts hidden records.
func (x *Index) Taken(name string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.records[name] != nil
}

// Reserve prepares the creation of the snapshot key as a child of parent. It counts the child,
// so that parent is not removed, and pins the template of parent, so that no cleanup destroys
// it. It returns that template and the sequence number for the new record. If parent is "",
// the template is empty.
//
// The caller holds the lock of key. If the operation succeeds, the caller calls Add, which
// also unpins the template. Otherwise it calls release.
func (x *Index) Reserve(key, parent string, empty layout.Template) (t *Template, seq uint64, release func(), err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.records[key] != nil {
		return nil, 0, nil, fmt.Errorf("snapshot %q: %w", key, errdefs.ErrAlreadyExists)
	}
	t = x.templates[empty.Dataset()]
	if parent != "" {
		p, err := x.getLocked(parent)
		if err != nil {
			return nil, 0, nil, fmt.Errorf("parent of %q: %w", key, err)
		}
		if p.Info.Kind != snapshots.KindCommitted {
			return nil, 0, nil, fmt.Errorf("parent %q of %q is not committed: %w", parent, key, errdefs.ErrInvalidArgument)
		}
		t = p.Template
	}
	x.addChild(parent)
	t.pins++
	x.seq++
	return t, x.seq, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.removeChild(parent)
		t.pins--
	}, nil
}

// addChild counts one child more of parent. The caller holds the mutex.
func (x *Index) addChild(parent string) {
	if parent != "" {
		x.children[parent]++
	}
}

// removeChild counts one child less of parent. The caller holds the mutex.
func (x *Index) removeChild(parent string) {
	if parent == "" {
		return
	}
	if x.children[parent]--; x.children[parent] <= 0 {
		delete(x.children, parent)
	}
}

// Add adds the record for which reserve was called, and releases its pins.
func (x *Index) Add(r *Entry, pinned *Template, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	pinned.pins--
	if r.Template != pinned {
		r.Template.pins-- // the layer that it represents, see reuse
	}
	x.insert(r)
	if r.Info.Kind == snapshots.KindActive {
		// A new clone has the same objects as its origin: nothing to count yet.
		x.samples[r.Dataset] = Sample{Counted: now}
	}
}

// linkRecord makes r the record of its name. The caller holds the mutex.
func (x *Index) linkRecord(r *Entry) {
	if old := x.records[r.Info.Name]; old != nil {
		x.unlinkRecord(old)
	}
	x.records[r.Info.Name] = r
	x.countStandIn(r, 1)
	if x.byDataset[r.Dataset] == nil {
		x.byDataset[r.Dataset] = make(map[string]*Entry)
	}
	x.byDataset[r.Dataset][r.Info.Name] = r
}

// unlinkRecord removes r from the maps of records. The caller holds the mutex.
func (x *Index) unlinkRecord(r *Entry) {
	delete(x.records, r.Info.Name)
	x.countStandIn(r, -1)
	if delete(x.byDataset[r.Dataset], r.Info.Name); len(x.byDataset[r.Dataset]) == 0 {
		delete(x.byDataset, r.Dataset)
	}
}

// insert adds a record. The caller holds the mutex and has called addChild for the parent.
func (x *Index) insert(r *Entry) {
	x.linkRecord(r)
	if r.Info.Kind != snapshots.KindActive {
		r.Template.Records++
		delete(x.stuck, r.Dataset) // in use again
	}
	if r.Info.Kind == snapshots.KindView {
		r.Template.views++
	}
}

// drop removes a record and its reference to the parent. The ready runtimes of a template that
// has no more records become garbage. The caller holds the mutex.
func (x *Index) drop(r *Entry, now time.Time) {
	x.unlinkRecord(r)
	delete(x.samples, r.Dataset)
	delete(x.fillings, r.Dataset)
	x.removeChild(r.Info.Parent)
	if r.Info.Kind != snapshots.KindActive {
		r.Template.Records--
	}
	if r.Info.Kind == snapshots.KindView {
		r.Template.views--
	}
	if r.Template != nil && r.Template.Records == 0 {
		x.giveUpReady(func(ready Ready) bool { return ready.Origin == r.Template }, now)
	}
}

// mountsSource reports whether clients mount source for the record's snapshot.
func (r *Entry) mountsSource(source string) bool {
	switch r.Info.Kind {
	case snapshots.KindActive:
		return r.Dataset == source
	case snapshots.KindView:
		return r.Template.Snapshot() == source
	}
	return false
}

// Sorted returns all records that are not hidden, sorted by name.
func (x *Index) Sorted() []*Entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	records := slices.SortedFunc(maps.Values(x.records), func(a, b *Entry) int {
		return strings.Compare(a.Info.Name, b.Info.Name)
	})
	return slices.DeleteFunc(records, func(r *Entry) bool { return x.hidden[r.Info.Name] })
}

// errRemoved cancels an operation on a snapshot that a Remove removes.
var errRemoved = fmt.Errorf("the snapshot was removed during the operation: %w", errdefs.ErrNotFound)

// Hide hides the record of key until remove removes it: it is not visible and cannot become
// a parent. It cancels an operation in UntilRemoved. It returns FailedPrecondition if the
// record has children.
func (x *Index) Hide(key string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n := x.children[key]; n > 0 && x.records[key] != nil {
		return fmt.Errorf("remove of %q: it is the parent of %d snapshots; remove these first: %w", key, n, errdefs.ErrFailedPrecondition)
	}
	x.hidden[key] = true
	if end := x.interrupts[key]; end != nil {
		end(errRemoved)
	}
	return nil
}

// UntilRemoved returns a context that a Remove of key cancels with errRemoved. The caller
// holds the lock of key and calls stop before it unlocks it.
func (x *Index) UntilRemoved(ctx context.Context, key string) (_ context.Context, stop func()) {
	ctx, end := context.WithCancelCause(ctx)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.interrupts[key] = end
	if x.hidden[key] {
		end(errRemoved)
	}
	return ctx, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.interrupts, key)
		end(nil)
	}
}

// Extraction returns the key of the extraction whose runtime is dataset. It returns
// FailedPrecondition if there is none.
func (x *Index) Extraction(dataset string) (key string, err error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range x.byDataset[dataset] {
		if r.Template != nil && r.StandInFor == "" && record.IsExtraction(r.Info) {
			return r.Info.Name, nil
		}
	}
	return "", fmt.Errorf("%s is not the runtime of an extraction: %w", dataset, errdefs.ErrFailedPrecondition)
}

// Committable returns the active record of key, which can be committed as name, and the
// committed record that has that name, or nil.
func (x *Index) Committable(name, key, parent string) (active, taken *Entry, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	active, err = x.getLocked(key)
	if err != nil {
		return nil, nil, err
	}
	taken = x.records[name]
	switch {
	case active.Info.Kind != snapshots.KindActive:
		return nil, nil, fmt.Errorf("snapshot %q is not active: %w", key, errdefs.ErrFailedPrecondition)
	case taken != nil && (taken.Info.Kind != snapshots.KindCommitted || x.hidden[name]):
		return nil, nil, fmt.Errorf("snapshot %q: %w", name, errdefs.ErrAlreadyExists)
	case parent != "" && parent != active.Info.Parent:
		return nil, nil, fmt.Errorf("commit of %q: it was prepared on parent %q and cannot be committed on %q: %w",
			key, active.Info.Parent, parent, errdefs.ErrInvalidArgument)
	}
	return active, taken, nil
}

// Commit replaces an active record by the committed record r. If the commit did not join an
// existing template, it adds r's. It calls write with the removal of a record that r replaces.
func (x *Index) Commit(r, active *Entry, joined bool, now time.Time, write Writer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	origin := active.Template
	if !joined {
		x.templates[r.Dataset] = r.Template
		origin = r.Template
	}
	x.addChild(r.Info.Parent)
	x.drop(active, now)
	if taken := x.records[r.Info.Name]; taken != nil {
		x.drop(taken, now) // until it is removed from the pool, its sequence number is smaller
		write(taken.Clear())
	}
	x.insert(r)
	x.discard(active.Dataset, origin, now)
	delete(x.unresolved, active.Dataset)
}

// Remove removes the record of key, if there is one, and calls write with the ops that remove
// it from the pool. The caller holds the lock of key and has called hide, so the record has no
// children.
func (x *Index) Remove(key string, now time.Time, write Writer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.hidden, key)
	r := x.records[key]
	if r == nil {
		return
	}
	x.drop(r, now)
	ops := r.Clear()
	switch t := r.Template; {
	case r.Info.Kind == snapshots.KindActive:
		x.discard(r.Dataset, t, now)
		if u := x.unresolved[r.Dataset]; u.Joined {
			write(u.Commit.Clear()) // may be on the template
		}
		x.dropUnresolved(r.Dataset, now)
	case t.Records > 0 || t.IsEmpty():
	case t.IsOpaque():
		t.Idle = now // it expires at once
	default:
		t.Idle = now
		ops = append(ops, zfs.Set(r.Dataset, record.LastUsedProperty, layout.FormatTime(now)))
	}
	write(ops)
}

// DiscardRecord removes the record of an active snapshot, so that its runtime becomes garbage.
// The record's parent and template stay reserved until the caller calls release.
func (x *Index) DiscardRecord(old *Entry, now time.Time) (release func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.addChild(old.Info.Parent)
	old.Template.pins++
	x.drop(old, now)
	x.discard(old.Dataset, old.Template, now)
	x.dropUnresolved(old.Dataset, now)
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.removeChild(old.Info.Parent)
		old.Template.pins--
	}
}

// AddCommitted adds a record to a template.
func (x *Index) AddCommitted(r *Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.addChild(r.Info.Parent)
	x.insert(r)
}

// Replace replaces the record of a name by an updated one.
func (x *Index) Replace(r *Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.linkRecord(r)
}

// InsertHealed adds a healed record. It becomes the parent again of those of children that
// lost it. The caller holds the locks of children.
func (x *Index) InsertHealed(r *Entry, children []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.insert(r)
	for _, key := range children {
		x.linkChild(key, r.Info.Name)
	}
}

// IsExtraction reports whether a runtime is that of an extraction.
func (x *Index) IsExtraction(runtime string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range x.byDataset[runtime] {
		if record.IsExtraction(r.Info) {
			return true
		}
	}
	return false
}

// NamespaceOf returns the containerd namespace of the snapshots that mount source, or "" if
// there is none or more than one.
func (x *Index) NamespaceOf(source string) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	found := ""
	dataset, _, _ := strings.Cut(source, "@")
	for name, r := range x.byDataset[dataset] {
		if !r.mountsSource(source) {
			continue
		}
		ns := layout.Namespace(name)
		if ns == "" || found != "" && found != ns {
			return ""
		}
		found = ns
	}
	return found
}
