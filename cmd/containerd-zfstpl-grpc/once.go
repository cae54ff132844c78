package main

import (
	"maps"
	"sync"
)

// once remembers for which processes something was logged.
type once struct {
	mu     sync.Mutex
	logged map[int]*caller // by PID
}

// first reports whether it is called for the first time for the process of a caller. All
// callers that cannot be identified count as one.
func (o *once) first(from *caller) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.logged[from.pid]; known != nil && (known == from || from.pid == 0 || known.alive()) {
		return false
	}
	if o.logged == nil {
		o.logged = make(map[int]*caller)
	}
	maps.DeleteFunc(o.logged, func(_ int, c *caller) bool { return c.pid != 0 && !c.alive() }) // each has a descriptor
	o.logged[from.pid] = from
	return true
}
