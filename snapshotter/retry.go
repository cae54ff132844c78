package snapshotter

import (
	"context"
	"time"

	"github.com/containerd/log"
)

// retries runs a cleanup when a dataset that could not be destroyed is to be
// tried again, so that its space comes back without waiting for containerd's
// next garbage collection.
type retries struct {
	wake chan struct{} // what is stuck may have changed
	quit context.CancelFunc
	done chan struct{}
}

// start begins; ctx has what the log needs.
func (q *retries) start(ctx context.Context, s *Snapshotter) {
	ctx, q.quit = context.WithCancel(ctx)
	q.wake = make(chan struct{}, 1)
	q.done = make(chan struct{})
	go q.run(ctx, s)
}

// stop ends the goroutine. A cleanup it has begun goes on behind it.
func (q *retries) stop() {
	q.quit()
	<-q.done
}

// poke makes run look again at what is stuck. It never waits.
func (q *retries) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *retries) run(ctx context.Context, s *Snapshotter) {
	defer close(q.done)
	timer := time.NewTimer(lastRetry)
	defer timer.Stop()
	pause := firstRetry // at least, between two cleanups
	for {
		if next, ok := s.index.nextRetry(s.config.WarmKeep); ok {
			timer.Reset(max(time.Until(next), pause))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		case <-timer.C:
			err := s.Cleanup(ctx)
			if err == nil || ctx.Err() != nil {
				pause = firstRetry
				continue
			}
			pause = min(2*pause, lastRetry)
			log.G(ctx).WithError(err).WithField("again", pause).Warn("a cleanup could not be done")
		}
	}
}
