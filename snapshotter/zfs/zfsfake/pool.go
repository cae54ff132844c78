// Package zfsfake has a ZFS pool in memory that follows the rules of ZFS and can fail at each call.
// It is for tests.
package zfsfake

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// ErrKilled is the error of a killed command.
var ErrKilled = errors.New("signal: killed")

// ErrCrashed is the error of a pool after a crash of its machine.
var ErrCrashed = errors.New("the machine has crashed")

// Pool is a ZFS pool in memory that follows the rules of ZFS. A transaction changes a
// copy of the state, which replaces the state if the transaction succeeds.
type Pool struct {
	tb    testing.TB
	Steps bool // as before 2.4, where a clone is a separate transaction
	Torn  bool // each step is a transaction, which no release of ZFS does

	Abilities Abilities
	// CloseAttached replaces the end of a mount that Attach made.
	CloseAttached func(name string, unmount func()) error

	mu         sync.Mutex
	Current    State
	CrashAfter int // number of transactions until the machine crashes; negative for never
	KillAfter  int // number of transactions until one command is killed; negative for never
	Crashed    bool

	// Keeps reports whether a dataset must not be destroyed. If one is, the test fails.
	Keeps atomic.Pointer[func(dataset string) bool]

	// Before and after are called before and after every call, with its name. An error of
	// before replaces the call; an error of after replaces the result.
	Before, After func(call string) error

	Listed func(root string) // called at each listing; may be nil
}

func New(tb testing.TB) *Pool {
	p := &Pool{tb: tb, CrashAfter: -1, KillAfter: -1}
	p.Current = State{Mounted: make(map[string]bool), Attached: make(map[string]int), FS: make(map[string]FS)}
	p.Current.Create("tank", nil)
	return p
}

// AfterCrash returns the pool as the next boot imports it: nothing is mounted, and data
// that was not flushed is lost.
func (p *Pool) AfterCrash() *Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Crashed = true
	next := &Pool{tb: p.tb, Steps: p.Steps, Torn: p.Torn, Abilities: p.Abilities, CrashAfter: -1, KillAfter: -1, Current: p.Current.Clone()}
	next.Current.Mounted, next.Current.Full = make(map[string]bool), false
	next.Current.Attached = make(map[string]int)
	for name, fs := range next.Current.FS {
		fs.Dirty = ""
		next.Current.FS[name] = fs
	}
	return next
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

func (p *Pool) call(name string, fn func() error) error {
	p.mu.Lock()
	before, after := p.Before, p.After
	p.mu.Unlock()
	if before != nil {
		if err := before(name); err != nil {
			return err
		}
	}
	if err := fn(); err != nil {
		return err
	}
	if after != nil {
		return after(name)
	}
	return nil
}

// Interrupt sets p.before while calls may be running.
func (p *Pool) Interrupt(before func(call string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Before = before
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

// transact runs fn as one transaction.
func (p *Pool) transact(fn func(s *State) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.CrashAfter == 0 {
		p.Crashed = true
	}
	if p.Crashed {
		return ErrCrashed
	}
	if p.KillAfter == 0 {
		p.KillAfter = -1
		return ErrKilled
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
}
