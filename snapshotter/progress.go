package snapshotter

import (
	"context"
	"time"
)

// Progress is the progress of a cleanup, in datasets.
type Progress struct {
	Looked    int // tried: destroyed or left
	Of        int // to try, as far as known
	Destroyed int
}

// The options of a cleanup in its context.
type (
	progressKey struct{}
	idleKey     struct{}
	urgentKey   struct{}
	askedKey    struct{}
)

// progressReporter counts the progress of a cleanup and reports it.
type progressReporter struct {
	now    Progress
	report func(Progress)
}

func withProgress(ctx context.Context, report func(Progress)) context.Context {
	if report == nil {
		return ctx
	}
	return context.WithValue(ctx, progressKey{}, &progressReporter{report: report})
}

// progressOf adds more datasets to the progress and returns a function to call after each
// batch.
func progressOf(ctx context.Context, more int) func(looked, destroyed int) {
	t, ok := ctx.Value(progressKey{}).(*progressReporter)
	if !ok || more == 0 {
		return func(int, int) {}
	}
	t.now.Of += more
	t.report(t.now)
	return func(looked, destroyed int) {
		t.now.Looked += looked
		t.now.Destroyed += destroyed
		t.report(t.now)
	}
}

// withIdle makes a cleanup destroy datasets with idle I/O priority.
func withIdle(ctx context.Context) context.Context { return context.WithValue(ctx, idleKey{}, true) }

func isIdle(ctx context.Context) bool { return ctx.Value(idleKey{}) != nil }

// withUrgent makes a cleanup as fast as possible, because a caller waits for the space.
func withUrgent(ctx context.Context) context.Context {
	return context.WithValue(ctx, urgentKey{}, true)
}

func isUrgent(ctx context.Context) bool { return ctx.Value(urgentKey{}) != nil }

// withAsked marks a cleanup that an administrator requested.
func withAsked(ctx context.Context) context.Context { return context.WithValue(ctx, askedKey{}, true) }

// retryTime returns the time at which a cleanup evaluates backoffs. For a reclaim and for
// an explicit request it is so late that every stuck dataset is tried again.
func retryTime(ctx context.Context) time.Time {
	if isUrgent(ctx) || ctx.Value(askedKey{}) != nil {
		return time.Now().Add(maxBackoff)
	}
	return time.Now()
}
