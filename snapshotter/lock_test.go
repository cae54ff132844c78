package snapshotter

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
		var k keyLocks
		unlock, err := k.lock(t.Context(), "a")
		require.NoError(t, err)
		other, err := k.lock(t.Context(), "b")
		require.NoError(t, err, "another name is free")
		other()
		got := make(chan func(), 1)
		go func() {
			u, _ := k.lock(context.Background(), "a")
			got <- u
		}()
		synctest.Wait()
		require.Empty(t, got, "the same one is not")
		unlock()
		(<-got)()
		assert.Empty(t, k.locks, "and nothing is left")
	})
}

// Whoever gives up waiting leaves nothing behind, and takes nobody's place.
func TestALockThatIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var k keyLocks
		unlock, err := k.lock(t.Context(), "a")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		answers := make(chan error, 2)
		for _, names := range [][]string{{"a"}, {"A", "a", "z"}} {
			go func() {
				u, err := k.lockAll(ctx, names...)
				assert.Nil(t, u)
				answers <- err
			}()
		}
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-answers, context.Canceled)
		require.ErrorIs(t, <-answers, context.Canceled)
		again, err := k.lock(t.Context(), "A")
		require.NoError(t, err, "what it held of several is free")
		again()
		unlock()
		assert.Empty(t, k.locks)
	})
}

func TestLocksKeepOthersOut(t *testing.T) {
	t.Parallel()
	var k keyLocks
	var wait sync.WaitGroup
	counts := map[string]*int{"a": new(int), "b": new(int)}
	for range 16 {
		wait.Go(func() {
			for range 100 {
				unlock, err := k.lockAll(t.Context(), "a", "b")
				if err != nil {
					t.Error(err)
					return
				}
				*counts["a"]++ // the race detector sees it when a lock is none
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

// What is left to the holder of a name is done once, under the lock and before the
// name is free, also where others wait for it or give up.
func TestLocksDoWhatIsLeftToThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var k keyLocks
		unlock, ok := k.lockOrDefer("a", nil)
		require.True(t, ok, "nothing holds it")
		var did []string
		_, ok = k.lockOrDefer("a", func() {
			did = append(did, "one")
			_, ok := k.lockOrDefer("a", func() { did = append(did, "three") })
			assert.False(t, ok, "it is held still")
		})
		require.False(t, ok)
		_, ok = k.lockOrDefer("a", func() { did = append(did, "two") })
		require.False(t, ok)
		ctx, cancel := context.WithCancel(t.Context())
		gone, got := make(chan error, 1), make(chan func(), 1)
		go func() { _, err := k.lock(ctx, "a"); gone <- err }()
		go func() { u, _ := k.lock(context.Background(), "a"); got <- u }()
		synctest.Wait()
		cancel()
		require.Error(t, <-gone)
		require.Empty(t, did)
		unlock()
		assert.Equal(t, []string{"one", "two", "three"}, did)
		(<-got)()
		assert.Empty(t, k.locks, "and nothing is left")
	})
}

// However many come at once, each does its work alone, itself or by who holds the name.
func TestLocksLoseNothingThatIsLeft(t *testing.T) {
	t.Parallel()
	var k keyLocks
	var wait sync.WaitGroup
	count := 0
	for i := range 16 {
		wait.Go(func() {
			for range 200 {
				add := func() { count++ } // the race detector sees it when a lock is none
				if i%2 == 0 {
					if unlock, ok := k.lockOrDefer("a", add); ok {
						add()
						unlock()
					}
					continue
				}
				unlock, err := k.lock(t.Context(), "a")
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
