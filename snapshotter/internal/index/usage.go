package index

import (
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// Sample is a measurement of an active snapshot's usage.
type Sample struct {
	snapshots.Usage
	At      time.Time // of the bytes
	Counted time.Time // of the objects
}

// Usage returns a record's usage if the index has it.
func (x *Index) Usage(r *Entry, maxAge time.Duration, now time.Time) (snapshots.Usage, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	switch {
	case r.Info.Kind == snapshots.KindView:
		return snapshots.Usage{}, true // adds nothing to its parent
	case r.Info.Kind == snapshots.KindCommitted && r.Template.sizes.usage != nil:
		return *r.Template.sizes.usage, true
	case r.Info.Kind == snapshots.KindActive:
		known, ok := x.samples[r.Dataset]
		return known.Usage, ok && now.Sub(known.At) < maxAge
	}
	return snapshots.Usage{}, false
}

// LastSample returns the last measurement of an active snapshot, if there is one.
func (x *Index) LastSample(r *Entry) (Sample, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	known, ok := x.samples[r.Dataset]
	return known, ok
}

// StoreSample stores a measurement, unless the snapshot has been removed.
func (x *Index) StoreSample(r *Entry, u Sample) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if now := x.records[r.Info.Name]; now != nil && now.Dataset == r.Dataset {
		x.samples[r.Dataset] = u
	}
}

// Sizes returns the sizes of a template that are known.
func (x *Index) Sizes(t *Template) Sizes {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return t.sizes
}

// SetBytes stores the bytes that the destruction of a template frees.
func (x *Index) SetBytes(t *Template, bytes uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.sizes.bytes, t.sizes.measured = bytes, true
}

// SetRefers stores the bytes that a template refers to.
func (x *Index) SetRefers(t *Template, bytes uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.sizes.Refers = bytes
}

// SetObjects stores the number of objects of a template.
func (x *Index) SetObjects(t *Template, n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.sizes.Objects = n
}

// SetUsage stores what a template adds to its parent.
func (x *Index) SetUsage(t *Template, u snapshots.Usage) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.sizes.usage = &u
}
