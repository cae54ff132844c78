package zfsfake

import "github.com/zfstpl/zfstpl/snapshotter/zfs"

// old is how tests set failures before FailAt.
type old struct {
	Abilities Abilities
	// CloseAttached replaces the end of a mount that Attach made.
	CloseAttached func(name string, unmount func()) error

	CrashAfter int // number of transactions until the machine crashes; negative for never
	KillAfter  int // number of transactions until one command is killed; negative for never

	// Before and after are called before and after every call, with its name. An error of
	// before replaces the call; an error of after replaces the result.
	Before, After func(call string) error

	Listed func(root string) // called at each listing; may be nil
}

// Abilities is the release and the missing features of a fake pool.
type Abilities struct {
	Release zfs.Release
	Lacks   []string // features
}

func (p *Pool) release() zfs.Release {
	if p.Abilities.Release != (zfs.Release{}) {
		return p.Abilities.Release
	}
	return p.Now().Release
}

// Interrupt sets Before while calls may be running.
func (p *Pool) Interrupt(before func(call string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Before = before
}

func (p *Pool) oldCall(name string, fn func() error) error {
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

func (p *Pool) oldTransact() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.CrashAfter == 0 {
		p.Crashed = true
		return ErrCrashed
	}
	if p.KillAfter == 0 {
		p.KillAfter = -1
		return ErrKilled
	}
	return nil
}
