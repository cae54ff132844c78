package snapshotter

import (
	"context"
	"sync"
)

// keyLocks are mutexes by name that exist only while somebody holds or wants
// them.
type keyLocks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	held     chan struct{} // a place for one
	users    int           // who holds or waits; guarded by keyLocks.mu
	deferred []func()      // what the holder runs before name is free; guarded by keyLocks.mu
}

// lock waits until name is free or ctx ends. The function it answers frees it.
func (k *keyLocks) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = make(map[string]*keyLock)
	}
	l := k.locks[name]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		k.locks[name] = l
	}
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

// lockAll locks names in the given order, which must be the same everywhere.
func (k *keyLocks) lockAll(ctx context.Context, names ...string) (unlock func(), err error) {
	var unlocks []func()
	unlock = func() {
		for _, u := range unlocks {
			u()
		}
	}
	for _, name := range names {
		u, err := k.lock(ctx, name)
		if err != nil {
			unlock()
			return nil, err
		}
		unlocks = append(unlocks, u)
	}
	return unlock, nil
}

// tryAll locks those of the names that nobody holds or waits for, and answers
// them.
func (k *keyLocks) tryLockEach(names ...string) (locked []string, unlock func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.locks == nil {
		k.locks = make(map[string]*keyLock)
	}
	var mine []*keyLock
	for _, name := range names {
		if k.locks[name] != nil {
			continue
		}
		l := &keyLock{held: make(chan struct{}, 1), users: 1}
		l.held <- struct{}{}
		k.locks[name] = l
		locked, mine = append(locked, name), append(mine, l)
	}
	return locked, func() {
		for i, l := range mine {
			k.release(locked[i], l)
		}
	}
}

// lockOrLeave locks name if nothing holds it, and never waits. If something does, it
// leaves do to the holder, which runs it as the last thing under its lock.
func (k *keyLocks) lockOrDefer(name string, do func()) (unlock func(), ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.locks == nil {
		k.locks = make(map[string]*keyLock)
	}
	l := k.locks[name]
	if l == nil {
		l = &keyLock{held: make(chan struct{}, 1)}
		k.locks[name] = l
	}
	select {
	case l.held <- struct{}{}:
		l.users++
		return func() { k.release(name, l) }, true
	default:
		l.deferred = append(l.deferred, do)
		return nil, false
	}
}

// release runs what was left to the holder and makes name free.
func (k *keyLocks) release(name string, l *keyLock) {
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
	<-l.held // under the mutex: what comes now finds it free, and leaves nothing
	k.mu.Unlock()
	k.unref(name, l)
}

func (k *keyLocks) unref(name string, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, name)
	}
}
