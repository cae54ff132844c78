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
	Steps bool // see InSteps
	Torn  bool // see Torn

	Keeps atomic.Pointer[func(dataset string) bool] // see Keep

	mu       sync.Mutex
	Current  State
	Crashed  bool
	failures []*failure
	counters []*counter

	old
}

// Option changes a new pool.
type Option func(p *Pool)

// InSteps makes Apply work as before 2.4, where a clone is a transaction of its own.
func InSteps(p *Pool) { p.Steps = true }

// Torn makes each operation of an Apply a transaction of its own, which no release of ZFS
// does. A killed command can leave any number of them.
func Torn(p *Pool) { p.Torn = true }

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
	p := &Pool{tb: tb, Current: s, old: old{CrashAfter: -1, KillAfter: -1}}
	tb.Cleanup(p.endAll)
	return p
}

// AfterCrash returns the pool as the next boot imports it: nothing is mounted, and data
// that was not flushed is lost.
func (p *Pool) AfterCrash() *Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Crashed = true
	s := p.Current.Clone()
	s.Mounted, s.Attached, s.Full = make(map[string]bool), make(map[string]int), false
	for name, fs := range s.FS {
		fs.Dirty = ""
		s.FS[name] = fs
	}
	next := newPool(p.tb, s)
	next.Steps, next.Torn, next.Abilities = p.Steps, p.Torn, p.Abilities
	return next
}

// HasCrashed reports whether the machine has crashed.
func (p *Pool) HasCrashed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Crashed
}

// Keep makes the test fail if a dataset for which keeps returns true is destroyed. keeps may
// be nil.
func (p *Pool) Keep(keeps func(dataset string) bool) {
	if keeps == nil {
		p.Keeps.Store(nil)
		return
	}
	p.Keeps.Store(&keeps)
}

// Now returns a copy of the state of the pool.
func (p *Pool) Now() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Current.Clone()
}

// Edit changes the pool without the snapshotter.
func (p *Pool) Edit(fn func(s *State)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(&p.Current)
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
	return p.between(ops, func() error { return p.oldCall(string(kind), fn) })
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
	if p.Crashed {
		return ErrCrashed
	}
	return fn(&p.Current)
}

// transact runs fn as one transaction, which has the given operations.
func (p *Pool) transact(ops []operation, fn func(s *State) error) error {
	if p.HasCrashed() {
		return ErrCrashed
	}
	if err := p.oldTransact(); err != nil {
		return err
	}
	return p.between(slices.Concat(eachOf(Transaction, ""), ops), func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.Crashed {
			return ErrCrashed
		}
		next := p.Current.Clone()
		next.TXG++
		if err := fn(&next); err != nil {
			return err
		}
		p.Current = next
		p.CrashAfter--
		p.KillAfter--
		return nil
	})
}
