package index

import (
	"slices"
	"time"
)

// Ready is a runtime that was made in advance and has no record.
type Ready struct {
	Dataset string
	Origin  *Template // of which it is a clone
	Quota   uint64    // its refquota in bytes, or zero
	Mounted bool      // whether it is mounted, or that was tried
	ZIL     bool      // whether its intent log was created, or that was tried
}

// AddReady adds a ready runtime. If its template is not in use any more, the runtime is garbage.
func (x *Index) AddReady(r Ready, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.templates[r.Origin.Dataset()] != r.Origin || r.Origin.Records == 0 {
		x.discard(r.Dataset, r.Origin, now)
		return
	}
	x.ready = append(x.ready, r)
}

// PinInUse pins a template that has records. It reports false for any other.
func (x *Index) PinInUse(t *Template) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.templates[t.Dataset()] != t || t.Records == 0 {
		return false
	}
	t.pins++
	return true
}

// TakeReady returns a ready runtime of a template with a quota, and removes it from the ready
// ones. The caller makes it the runtime of a record, or garbage.
func (x *Index) TakeReady(t *Template, quota uint64) (r Ready, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := slices.IndexFunc(x.ready, func(r Ready) bool { return r.Origin == t && r.Quota == quota })
	if i < 0 {
		return r, false
	}
	r = x.ready[i]
	x.ready = slices.Delete(x.ready, i, i+1)
	return r, true
}

// TakeUnmounted returns a ready runtime that is not mounted, and removes it from the ready ones.
func (x *Index) TakeUnmounted() (r Ready, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := slices.IndexFunc(x.ready, func(r Ready) bool { return !r.Mounted })
	if i < 0 {
		return r, false
	}
	r = x.ready[i]
	x.ready = slices.Delete(x.ready, i, i+1)
	return r, true
}

// MarkZIL marks the ready runtimes of some templates as having their intent log. It returns those
// that were not marked, for which the caller has it created.
func (x *Index) MarkZIL(of func(*Template) bool) (datasets []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range x.ready {
		if r := &x.ready[i]; !r.ZIL && of(r.Origin) {
			r.ZIL = true
			datasets = append(datasets, r.Dataset)
		}
	}
	return datasets
}

// CountReady returns the number of ready runtimes of each template.
func (x *Index) CountReady() map[*Template]int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n := make(map[*Template]int)
	for _, r := range x.ready {
		n[r.Origin]++
	}
	return n
}

// GiveUpReady makes ready runtimes garbage, for which giveUp reports true.
func (x *Index) GiveUpReady(giveUp func(Ready) bool, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.giveUpReady(giveUp, now)
}

// giveUpReady is GiveUpReady for a caller that holds the mutex.
func (x *Index) giveUpReady(giveUp func(Ready) bool, now time.Time) {
	x.ready = slices.DeleteFunc(x.ready, func(r Ready) bool {
		gone := giveUp(r)
		if gone {
			x.discard(r.Dataset, r.Origin, now)
		}
		return gone
	})
}

// EachReady calls fn with the dataset of each ready runtime.
func (x *Index) EachReady(fn func(dataset string)) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range x.ready {
		fn(r.Dataset)
	}
}
