package snapshotter

import (
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// sample is a measurement of an active snapshot's usage.
type sample struct {
	snapshots.Usage
	at      time.Time
	counted time.Time // of the objects
}

// usage returns a record's usage if the index has it.
func (x *index) usage(r *entry, maxAge time.Duration, now time.Time) (snapshots.Usage, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	switch {
	case r.Info.Kind == snapshots.KindView:
		return snapshots.Usage{}, true // adds nothing to its parent
	case r.Info.Kind == snapshots.KindCommitted && r.template.usage != nil:
		return *r.template.usage, true
	case r.Info.Kind == snapshots.KindActive:
		known, ok := x.samples[r.Dataset]
		return known.Usage, ok && now.Sub(known.at) < maxAge
	}
	return snapshots.Usage{}, false
}

// lastSample returns the last measurement of an active snapshot, if there is one.
func (x *index) lastSample(r *entry) (sample, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	known, ok := x.samples[r.Dataset]
	return known, ok
}

// storeSample stores a measurement, unless the snapshot has been removed.
func (x *index) storeSample(r *entry, u sample) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if now := x.records[r.Info.Name]; now != nil && now.Dataset == r.Dataset {
		x.samples[r.Dataset] = u
	}
}

// sizes returns the sizes of a template that are known.
func (x *index) sizes(t *template) sizes {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return t.sizes
}

// setBytes stores the bytes that the destruction of a template frees.
func (x *index) setBytes(t *template, bytes uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.bytes, t.measured = bytes, true
}

// setRefers stores the bytes that a template refers to.
func (x *index) setRefers(t *template, bytes uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.refers = bytes
}

// setObjects stores the number of objects of a template.
func (x *index) setObjects(t *template, n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.objects = n
}

// setUsage stores what a template adds to its parent.
func (x *index) setUsage(t *template, u snapshots.Usage) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.usage = &u
}
