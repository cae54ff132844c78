package zfsfake

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// Pool is a ZFS pool in memory that follows the rules of ZFS. A transaction changes a
// copy of the state, which replaces the state if the transaction succeeds.
type Pool struct {
	tb    testing.TB
	steps bool // see InSteps
	torn  bool // see Torn

	losesWrites bool // see LosesWrites

	keeps atomic.Pointer[func(dataset string) bool] // see Keep

	mu       sync.Mutex
	state    State
	crashed  bool
	failures []*failure
	counters []*counter
	files    []*File
}

// Option changes a new pool.
type Option func(p *Pool)

// InSteps makes Apply work as before 2.4, where a clone is a transaction of its own.
func InSteps(p *Pool) { p.steps = true }

// Torn makes each operation of an Apply a transaction of its own, which no release of ZFS
// does. A killed command can leave any number of them.
func Torn(p *Pool) { p.torn = true }

// New returns an empty pool called tank, of the latest release with all features. The end of
// the test ends its failures.
func New(tb testing.TB, options ...Option) *Pool {
	s := State{Mounted: make(map[string]bool), Attached: make(map[string]int), FS: make(map[string]FS)}
	s.Create("tank", nil)
	p := newPool(tb, s)
	for _, option := range options {
		option(p)
	}
	return p
}

func newPool(tb testing.TB, s State) *Pool {
	p := &Pool{tb: tb, state: s}
	tb.Cleanup(p.endAll)
	return p
}

// AfterCrash returns the pool as the next boot imports it: nothing is mounted, and data
// that was not flushed is lost.
func (p *Pool) AfterCrash() *Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.crashed = true
	s := p.state.Clone()
	s.Mounted, s.Attached, s.Full = make(map[string]bool), make(map[string]int), false
	for name, fs := range s.FS {
		fs.Dirty = ""
		s.FS[name] = fs
	}
	for _, f := range p.files {
		f.crash(p.losesWrites)
	}
	next := newPool(p.tb, s)
	next.steps, next.torn, next.losesWrites = p.steps, p.torn, p.losesWrites
	return next
}

// HasCrashed reports whether the machine has crashed.
func (p *Pool) HasCrashed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.crashed
}

// Keep makes the test fail if a dataset for which keeps returns true is destroyed. keeps may
// be nil.
func (p *Pool) Keep(keeps func(dataset string) bool) {
	if keeps == nil {
		p.keeps.Store(nil)
		return
	}
	p.keeps.Store(&keeps)
}

// Now returns a copy of the state of the pool.
func (p *Pool) Now() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.Clone()
}

// Edit changes the pool without the snapshotter.
func (p *Pool) Edit(fn func(s *State)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(&p.state)
}

// EditFS changes one file system without the snapshotter.
func (p *Pool) EditFS(name string, fn func(fs *FS)) {
	p.tb.Helper()
	p.Edit(func(s *State) {
		fs, ok := s.FS[name]
		if !ok {
			p.tb.Fatalf("file system %s does not exist", name)
		}
		fn(&fs)
		s.FS[name] = fs
	})
}

// call runs a call of the pool between its two points.
func (p *Pool) call(kind Kind, names []string, fn func() error) error {
	ops := append([]operation{{kind: Call}}, eachOf(kind, names...)...)
	return p.between(ops, fn)
}

// between runs fn between the points before and after ops.
func (p *Pool) between(ops []operation, fn func() error) error {
	if err := p.pass(false, ops...); err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	return p.pass(true, ops...)
}

// read runs fn with the state.
func (p *Pool) read(fn func(s *State) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.crashed {
		return ErrCrashed
	}
	return fn(&p.state)
}

// transact runs fn as one transaction, which has the given operations.
func (p *Pool) transact(ops []operation, fn func(s *State) error) error {
	if p.HasCrashed() {
		return ErrCrashed
	}
	return p.between(slices.Concat(eachOf(Transaction, ""), ops), func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.crashed {
			return ErrCrashed
		}
		next := p.state.Clone()
		next.TXG++
		if err := fn(&next); err != nil {
			return err
		}
		p.state = next
		for _, f := range p.files {
			f.durable = f.size
		}
		return nil
	})
}
