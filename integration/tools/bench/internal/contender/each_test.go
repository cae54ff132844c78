package contender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func keys(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func TestEachCallsForEveryKeyOnce(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	require.NoError(t, Each(t.Context(), 7, keys(100), func(_ context.Context, key string) error {
		mu.Lock()
		defer mu.Unlock()
		seen[key]++
		return nil
	}))
	require.Len(t, seen, 100)
	for key, n := range seen {
		assert.Equal(t, 1, n, key)
	}
}

func TestEachStopsAtTheFirstFailure(t *testing.T) {
	var calls atomic.Int32
	broken := errors.New("broken")
	err := Each(t.Context(), 2, keys(1000), func(context.Context, string) error {
		if calls.Add(1) == 3 {
			return broken
		}
		return nil
	})
	require.ErrorIs(t, err, broken)
	assert.Less(t, calls.Load(), int32(1000))
}

func TestEachEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Each(ctx, 2, keys(10), func(context.Context, string) error { return nil }), context.Canceled)
}
