package contender

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Each calls f for each of the keys, by so many callers at once, and returns
// what went wrong. After the first failure no further key is begun.
func Each(ctx context.Context, callers int, keys []string, f func(context.Context, string) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan string)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for key := range queue {
				if err := f(ctx, key); err != nil {
					errs[i] = fmt.Errorf("%s: %w", key, err)
					cancel()
					return
				}
			}
		})
	}
	for _, key := range keys {
		select {
		case queue <- key:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
	}
	close(queue)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return context.Cause(ctx)
}
