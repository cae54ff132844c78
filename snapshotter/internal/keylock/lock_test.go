package keylock

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLocksAreByName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var k Locks
		unlock, err := k.Lock(t.Context(), "a")
		require.NoError(t, err)
		other, err := k.Lock(t.Context(), "b")
		require.NoError(t, err, "another name is free")
		other()
		got := make(chan func(), 1)
		go func() {
			u, _ := k.Lock(context.Background(), "a")
			got <- u
		}()
		synctest.Wait()
		require.Empty(t, got, "the same name is not")
		unlock()
		(<-got)()
		assert.Empty(t, k.locks, "no lock is left")
	})
}

// A cancelled waiter holds no lock afterwards.
func TestCancelledLockHoldsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var k Locks
		unlock, err := k.Lock(t.Context(), "a")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan error, 2)
		for _, names := range [][]string{{"a"}, {"A", "a", "z"}} {
			go func() {
				u, err := k.LockAll(ctx, names...)
				assert.Nil(t, u)
				results <- err
			}()
		}
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-results, context.Canceled)
		require.ErrorIs(t, <-results, context.Canceled)
		again, err := k.Lock(t.Context(), "A")
		require.NoError(t, err, "the locks that it held are free")
		again()
		unlock()
		assert.Empty(t, k.locks)
	})
}

func TestLocksExclude(t *testing.T) {
	t.Parallel()
	var k Locks
	var wait sync.WaitGroup
	counts := map[string]*int{"a": new(int), "b": new(int)}
	for range 16 {
		wait.Go(func() {
			for range 100 {
				unlock, err := k.LockAll(t.Context(), "a", "b")
				if err != nil {
					t.Error(err)
					return
				}
				*counts["a"]++ // the race detector finds a lock that does not exclude
				*counts["b"]++
				unlock()
			}
		})
	}
	wait.Wait()
	assert.Equal(t, 1600, *counts["a"])
	assert.Equal(t, 1600, *counts["b"])
	assert.Empty(t, k.locks)
}

// The holder of a name runs deferred functions once, before it unlocks the name, also if
// others wait for the name or give up.
func TestLocksRunDeferredFunctions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var k Locks
		unlock, ok := k.LockOrDefer("a", nil)
		require.True(t, ok, "the name is free")
		var ran []string
		_, ok = k.LockOrDefer("a", func() {
			ran = append(ran, "one")
			_, ok := k.LockOrDefer("a", func() { ran = append(ran, "three") })
			assert.False(t, ok, "the name is still held")
		})
		require.False(t, ok)
		_, ok = k.LockOrDefer("a", func() { ran = append(ran, "two") })
		require.False(t, ok)
		ctx, cancel := context.WithCancel(t.Context())
		gone, got := make(chan error, 1), make(chan func(), 1)
		go func() { _, err := k.Lock(ctx, "a"); gone <- err }()
		go func() { u, _ := k.Lock(context.Background(), "a"); got <- u }()
		synctest.Wait()
		cancel()
		require.Error(t, <-gone)
		require.Empty(t, ran)
		unlock()
		assert.Equal(t, []string{"one", "two", "three"}, ran)
		(<-got)()
		assert.Empty(t, k.locks, "no lock is left")
	})
}

// Of concurrent calls, each function runs exactly once, in the caller or in the holder.
func TestLocksLoseNoDeferredFunction(t *testing.T) {
	t.Parallel()
	var k Locks
	var wait sync.WaitGroup
	count := 0
	for i := range 16 {
		wait.Go(func() {
			for range 200 {
				add := func() { count++ } // the race detector finds a lock that does not exclude
				if i%2 == 0 {
					if unlock, ok := k.LockOrDefer("a", add); ok {
						add()
						unlock()
					}
					continue
				}
				unlock, err := k.Lock(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				add()
				unlock()
			}
		})
	}
	wait.Wait()
	assert.Equal(t, 3200, count)
	assert.Empty(t, k.locks)
}
