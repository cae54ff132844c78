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
	held  chan struct{} // a place for one
	users int           // who holds or waits; guarded by keyLocks.mu
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
		return func() { <-l.held; k.leave(name, l) }, nil
	case <-ctx.Done():
		k.leave(name, l)
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
func (k *keyLocks) tryAll(names ...string) (locked []string, unlock func()) {
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
			<-l.held
			k.leave(locked[i], l)
		}
	}
}

func (k *keyLocks) leave(name string, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, name)
	}
}
