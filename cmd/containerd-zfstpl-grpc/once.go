package main

import (
	"maps"
	"sync"
)

// once remembers of which processes something was said.
type once struct {
	mu   sync.Mutex
	said map[int]*caller // by PID
}

// first reports whether it is asked for the first time for the process of a caller.
// All that cannot be identified count as one.
func (o *once) first(from *caller) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if known := o.said[from.pid]; known != nil && (known == from || from.pid == 0 || known.alive()) {
		return false
	}
	if o.said == nil {
		o.said = make(map[int]*caller)
	}
	maps.DeleteFunc(o.said, func(_ int, c *caller) bool { return c.pid != 0 && !c.alive() }) // each holds a descriptor
	o.said[from.pid] = from
	return true
}
