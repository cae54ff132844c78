package zfsfake

import (
	"errors"
	"slices"
)

// ErrKilled is the error of a killed command.
var ErrKilled = errors.New("signal: killed")

// ErrCrashed is the error of a pool after a crash of its machine.
var ErrCrashed = errors.New("the machine has crashed")

// Failure is what happens at a point.
type Failure struct {
	do   func(p *Pool, e event) error
	once bool
}

// Return makes the call return an error.
func Return(err error) Failure { return Do(func() error { return err }) }

// Refuse makes the call return an error of package zfs with the given kind, about the first
// operation of the point.
func Refuse(kind error) Failure {
	return Failure{do: func(_ *Pool, e event) error {
		i := slices.IndexFunc(e.ops, func(op operation) bool { return op.kind != Call && op.kind != Transaction })
		return Error(string(e.ops[max(i, 0)].kind), e.ops[max(i, 0)].name, kind)
	}}
}

// Kill makes one call return ErrKilled. Its transactions up to the point remain.
func Kill() Failure {
	return Failure{once: true, do: func(*Pool, event) error { return ErrKilled }}
}

// Crash ends the machine. All later calls of the pool return ErrCrashed.
func Crash() Failure {
	return Failure{once: true, do: func(p *Pool, _ event) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.crashed = true
		return ErrCrashed
	}}
}

// Wait makes the call wait until the channel is closed.
func Wait(gate <-chan struct{}) Failure {
	return Do(func() error { <-gate; return nil })
}

// Do runs a function, which may use the pool. An error makes the call return it.
func Do(fn func() error) Failure {
	return Failure{do: func(*Pool, event) error { return fn() }}
}

// Limit restricts when a failure happens. Without one it happens each time that the pool
// reaches its point.
type Limit func(f *failure)

// Once is Times(1).
func Once() Limit { return Times(1) }

// Times lets the failure happen n times at most.
func Times(n int) Limit { return func(f *failure) { f.times = n } }

// Every lets the failure happen each n-th time that the pool reaches the point.
func Every(n int) Limit { return func(f *failure) { f.every = n } }

// From lets the failure happen only after another point, which must be reached too.
func From(at Point) Limit { return func(f *failure) { f.from = &at } }

// Until lets the failure happen only before another point, which must be reached too.
func Until(at Point) Limit { return func(f *failure) { f.until = &at } }

// Optional accepts that the pool does not reach the point of the failure.
func Optional() Limit { return func(f *failure) { f.optional = true } }

// failure is a failure that FailAt has set.
type failure struct {
	at           Point
	what         Failure
	from, until  *Point
	times, every int // 0 for no limit
	optional     bool

	began, over bool // from and until are reached
	seen, done  int  // how often the point was reached, and the failure happened
}

// FailAt makes the pool fail at a point, until end is called. If several failures have one
// point, all of them happen, and the first error is returned. end returns whether the failure
// happened. The test fails if it did not happen before end is called, or before the test ends.
func (p *Pool) FailAt(at Point, what Failure, limits ...Limit) (end func() (happened bool)) {
	f := &failure{at: at, what: what}
	if what.once {
		f.times = 1
	}
	for _, limit := range limits {
		limit(f)
	}
	f.began = f.from == nil
	if at.cut != nil {
		at.cut.begin()
		f.optional = true // Each ends there
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures = append(p.failures, f)
	return func() bool {
		p.tb.Helper()
		return p.end(f)
	}
}

// end removes a failure and reports a point that was not reached.
func (p *Pool) end(f *failure) (happened bool) {
	p.tb.Helper()
	p.mu.Lock()
	i := slices.Index(p.failures, f)
	if i >= 0 {
		p.failures = slices.Delete(p.failures, i, i+1)
	}
	happened, missed := f.done > 0, f.missed()
	p.mu.Unlock()
	if i >= 0 && missed != nil {
		p.tb.Errorf("the pool did not reach the failure point %q", missed)
	}
	return happened
}

// endAll ends the failures that a test left.
func (p *Pool) endAll() {
	p.mu.Lock()
	left := slices.Clone(p.failures)
	p.mu.Unlock()
	for _, f := range left {
		p.end(f)
	}
}

// missed returns a point that had to be reached and was not.
func (f *failure) missed() *Point {
	switch {
	case f.optional:
		return nil
	case !f.began:
		return f.from
	case f.done == 0:
		return &f.at
	case f.until != nil && !f.over:
		return f.until
	}
	return nil
}

// happens returns whether the failure happens at an event.
func (f *failure) happens(e event) bool {
	began := f.began
	f.began = f.began || f.from.matches(e)
	f.over = f.over || f.until != nil && f.until.matches(e)
	if !began || f.over || f.times > 0 && f.done >= f.times || !f.at.matches(e) {
		return false
	}
	f.seen++
	if f.every > 0 && f.seen%f.every != 0 || f.at.cut != nil && !f.at.cut.isAt(f.seen, e) {
		return false
	}
	f.done++
	return true
}

// pass lets the failures of an event happen and returns the first error.
func (p *Pool) pass(after bool, ops ...operation) error {
	e := event{after, ops}
	p.mu.Lock()
	var due []*failure
	for _, f := range p.failures {
		if f.happens(e) {
			due = append(due, f)
		}
	}
	for _, c := range p.counters {
		if c.at.matches(e) {
			c.n.Add(1)
		}
	}
	p.mu.Unlock()
	var first error
	for _, f := range due { // without the lock, because a Do may use the pool
		if err := f.what.do(p, e); first == nil {
			first = err
		}
	}
	return first
}
