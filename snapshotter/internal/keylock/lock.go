// Package keylock has mutexes by name that a caller can stop waiting for.
package keylock

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Locks is a set of mutexes by name. A mutex exists only while it is held or waited
// for.
type Locks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	held     chan struct{} // of capacity 1
	users    int           // the holder and waiters; guarded by Locks.mu
	deferred []func()      // the holder runs these before it unlocks; guarded by Locks.mu
}

// get returns the mutex of name. The caller holds k.mu.
func (k *Locks) get(name string) *keyLock {
	if k.locks == nil {
		k.locks = make(map[string]*keyLock)
	}
	if k.locks[name] == nil {
		k.locks[name] = &keyLock{held: make(chan struct{}, 1)}
	}
	return k.locks[name]
}

// Lock locks name. It returns the context's error if ctx ends first.
func (k *Locks) Lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	l := k.get(name)
	l.users++
	k.mu.Unlock()
	select {
	case l.held <- struct{}{}:
		return func() { k.release(name, l) }, nil
	case <-ctx.Done():
		k.unref(name, l)
		return nil, ctx.Err()
	}
}

// LockAll locks names in sorted order, each once, or none of them.
func (k *Locks) LockAll(ctx context.Context, names ...string) (unlock func(), err error) {
	var unlocks []func()
	unlock = func() {
		for _, u := range unlocks {
			u()
		}
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		u, err := k.Lock(ctx, name)
		if err != nil {
			unlock()
			return nil, err
		}
		unlocks = append(unlocks, u)
	}
	return unlock, nil
}

// TryLockEach locks those names that are neither held nor waited for, and returns them.
func (k *Locks) TryLockEach(names ...string) (locked []string, unlock func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var mine []*keyLock
	for _, name := range names {
		if k.locks[name] != nil {
			continue
		}
		l := k.get(name)
		l.users++
		l.held <- struct{}{}
		locked, mine = append(locked, name), append(mine, l)
	}
	return locked, func() {
		for i, l := range mine {
			k.release(locked[i], l)
		}
	}
}

// LockOrDefer locks name if it is not held. Otherwise it defers do: the holder runs it
// immediately before it unlocks name. It never blocks.
func (k *Locks) LockOrDefer(name string, do func()) (unlock func(), ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.get(name)
	select {
	case l.held <- struct{}{}:
		l.users++
		return func() { k.release(name, l) }, true
	default:
		l.deferred = append(l.deferred, do)
		return nil, false
	}
}

// Names returns the names that are locked or waited for.
func (k *Locks) Names() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.locks))
}

// release runs deferred functions and unlocks name.
func (k *Locks) release(name string, l *keyLock) {
	k.mu.Lock()
	for len(l.deferred) > 0 {
		deferred := l.deferred
		l.deferred = nil
		k.mu.Unlock()
		for _, do := range deferred {
			do()
		}
		k.mu.Lock()
	}
	<-l.held // under the mutex, so that nothing is deferred after the loop
	k.mu.Unlock()
	k.unref(name, l)
}

// unref removes a user of l, and the last one removes l.
func (k *Locks) unref(name string, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, name)
	}
}
