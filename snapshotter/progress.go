package snapshotter

import (
	"context"
	"time"
)

// Progress is how far a cleanup has come.
type Progress struct {
	Looked    int // datasets that were destroyed or had to stay
	Of        int // as far as it is known by now
	Destroyed int
}

// What a cleanup is told by its context.
type (
	progressKey struct{}
	idleKey     struct{}
	urgentKey   struct{}
	askedKey    struct{}
)

// teller counts for whoever wants to hear.
type progressReporter struct {
	now  Progress
	tell func(Progress)
}

func withProgress(ctx context.Context, tell func(Progress)) context.Context {
	if tell == nil {
		return ctx
	}
	return context.WithValue(ctx, progressKey{}, &progressReporter{tell: tell})
}

// progressOf adds to what there is to do and answers what to call as it is done.
func progressOf(ctx context.Context, more int) func(looked, destroyed int) {
	t, ok := ctx.Value(progressKey{}).(*progressReporter)
	if !ok || more == 0 {
		return func(int, int) {}
	}
	t.now.Of += more
	t.tell(t.now)
	return func(looked, destroyed int) {
		t.now.Looked += looked
		t.now.Destroyed += destroyed
		t.tell(t.now)
	}
}

// withIdle has datasets destroyed at the priority of what nobody waits for.
func withIdle(ctx context.Context) context.Context { return context.WithValue(ctx, idleKey{}, true) }

func isIdle(ctx context.Context) bool { return ctx.Value(idleKey{}) != nil }

// withUrgent has datasets destroyed as fast as can be: somebody waits for the room.
func withUrgent(ctx context.Context) context.Context {
	return context.WithValue(ctx, urgentKey{}, true)
}

func isUrgent(ctx context.Context) bool { return ctx.Value(urgentKey{}) != nil }

// withAsked is for a cleanup that a person asked for.
func withAsked(ctx context.Context) context.Context { return context.WithValue(ctx, askedKey{}, true) }

// retryTime is the time by which it is judged whether what could not be destroyed is
// tried again. Who waits for room, or asks because he has just ended whatever was in
// the way, is not told to come again later.
func retryTime(ctx context.Context) time.Time {
	if isUrgent(ctx) || ctx.Value(askedKey{}) != nil {
		return time.Now().Add(maxBackoff)
	}
	return time.Now()
}
