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
