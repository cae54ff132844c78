package snapshotter

import (
	"context"
	"strings"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// CleanupProperty stands on a base as long as a cleanup has, or will have,
// something to do there. Its value is a Mark. It is written after what made the
// cleanup necessary: a crash in between is made good by the next start.
const CleanupProperty = PropertyPrefix + "cleanup"

// Mark is what a base says about the cleanup that it is owed.
type Mark struct {
	// Due is from when on there is something to do; zero where there never is.
	Due time.Time
	// List is the hash of the list that the last snapshotter kept of what may go.
	// While a snapshotter has the base open there is none.
	List string
}

// ParseMark reads the value of CleanupProperty; "" is no mark. One that cannot be
// read owes a cleanup from the beginning of time.
func ParseMark(value string) Mark {
	if value == "" {
		return Mark{}
	}
	due, list, _ := strings.Cut(value, " ")
	t, err := time.Parse(time.RFC3339, due)
	if err != nil || t.IsZero() {
		return Mark{Due: time.Unix(0, 0).UTC()}
	}
	return Mark{Due: t.UTC(), List: list}
}

func (m Mark) String() string {
	if m.Due.IsZero() {
		return ""
	}
	return strings.TrimSpace(stamp(m.Due) + " " + m.List)
}

// Owed tells whether a cleanup has something to do now.
func (m Mark) IsDue(now time.Time) bool { return !m.Due.IsZero() && !m.Due.After(now) }

// updateMark makes the base say what is owed. The queue's goroutine calls it, and
// nobody else while that runs.
func (s *Snapshotter) updateMark(ctx context.Context, list string) error {
	now := time.Now()
	next := Mark{Due: s.index.due(s.config.CacheKeep, s.config.CacheMaxBytes, now), List: list}
	if s.cleanupMark.IsDue(now) && next.IsDue(now) {
		next.Due = s.cleanupMark.Due // since when matters to nobody
	}
	return s.writeMark(ctx, next)
}

func (s *Snapshotter) writeMark(ctx context.Context, next Mark) error {
	if s.cleanupMark.String() == next.String() && !s.cleanupMarkUnsure {
		return nil
	}
	s.cleanupMarkUnsure = true // a call that fails may have been carried out
	if err := s.pool.Mark(ctx, s.config.Base.String(), CleanupProperty, next.String()); err != nil {
		return err
	}
	s.cleanupMark, s.cleanupMarkUnsure = next, false
	return nil
}

// readMark finds the base's mark in a listing. A list that was kept holds no more:
// the mark says so before anything else is changed.
func (s *Snapshotter) readMark(ctx context.Context, list []zfs.Dataset) error {
	for _, d := range list {
		if d.Name == s.config.Base.String() {
			s.cleanupMark = ParseMark(d.Props[CleanupProperty])
		}
	}
	return poolError("open", s.writeMark(ctx, Mark{Due: s.cleanupMark.Due}))
}

// due answers from when on a cleanup has something to do; zero for never.
func (x *index) due(keep time.Duration, maxBytes uint64, now time.Time) time.Time {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if len(x.garbage) > 0 {
		return now
	}
	var first time.Time
	var cached uint64
	for _, t := range x.templates {
		if maxBytes > 0 && t.cached() {
			// What was never measured a cleanup measures.
			if cached += t.bytes; cached > maxBytes || !t.measured {
				return now
			}
		}
		switch {
		case t.expired(keep):
			return now
		case !t.cached() || keep == KeepForever:
			continue
		}
		if at := t.idle.Add(keep); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}
