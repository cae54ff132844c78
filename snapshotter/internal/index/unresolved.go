package index

import (
	"maps"
	"slices"
	"time"
)

// Unresolved is a commit of a runtime whose outcome is not known, see recovery.Resolve.
type Unresolved struct {
	Runtime string
	// Active and Commit are the records before and after the commit. They are nil if only the
	// snapshot of a commit may be left on the runtime.
	Active, Commit *Entry
	Ready          string // the ready runtime that the commit may have made, or ""
	Joined         bool   // whether the commit adds a record to an existing template
	// Undone reports that the records in the pool are those before the commit, and that only
	// datasets or snapshots of the commit are left. The snapshot is then available, but cannot
	// be committed before these are destroyed.
	Undone bool
}

// makes returns the dataset that the commit may have created, or "".
func (u Unresolved) makes() string {
	if u.Commit == nil || u.Joined {
		return ""
	}
	return u.Commit.Dataset
}

// Suspend records that the outcome of a commit is not known. Until Resolved, no commit makes
// a template with the same name.
func (x *Index) Suspend(u Unresolved) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unresolved[u.Runtime] = u
	if name := u.makes(); name != "" {
		x.reservedNames[name] = true
	}
}

// Resolved records that the outcome of a commit is known. taken reports whether another
// dataset has the name of the commit's template.
func (x *Index) Resolved(u Unresolved, taken bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.unresolved, u.Runtime)
	if name := u.makes(); name != "" && !taken {
		delete(x.reservedNames, name)
	}
}

// UnresolvedOf returns the commit of a runtime whose outcome is not known, if there is one.
func (x *Index) UnresolvedOf(runtime string) (u Unresolved, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	u, ok = x.unresolved[runtime]
	return u, ok
}

// AllUnresolved returns the commits whose outcome is not known.
func (x *Index) AllUnresolved() []Unresolved {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.Collect(maps.Values(x.unresolved))
}

// IsUnresolved reports whether the outcome of a commit of key is not known.
func (x *Index) IsUnresolved(key string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := x.records[key]
	if r == nil {
		return false
	}
	u, ok := x.unresolved[r.Dataset]
	return ok && !u.Undone
}

// dropUnresolved makes the template that a commit of a runtime may have made garbage,
// together with the runtime. The caller holds the mutex.
func (x *Index) dropUnresolved(runtime string, now time.Time) {
	if partial := x.unresolved[runtime].makes(); partial != "" && x.templates[partial] == nil {
		x.discard(partial, nil, now)
		x.garbage[partial].runtime = runtime
	}
	delete(x.unresolved, runtime)
}
