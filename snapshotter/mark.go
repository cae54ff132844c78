package snapshotter

import (
	"context"
	"strings"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// CleanupProperty is the property of a base that holds its cleanup mark. It is set while a
// cleanup has, or will have, something to destroy. Its value is a Mark. It is written after
// the change that made the cleanup necessary. After a crash in between, the next start
// writes it.
const CleanupProperty = PropertyPrefix + "cleanup"

// Mark is the cleanup mark of a base. The zero value means that no cleanup is needed.
type Mark struct {
	// Due is the time from which a cleanup is due; zero for never.
	Due time.Time
	// List is the hash of the cleanup list that the last snapshotter saved in Close. It is
	// empty while a snapshotter has the base open.
	List string
}

// ParseMark parses the value of CleanupProperty; "" is the zero Mark. If the value is not
// valid, a cleanup is due.
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

// IsDue reports whether a cleanup is due.
func (m Mark) IsDue(now time.Time) bool { return !m.Due.IsZero() && !m.Due.After(now) }

// updateMark writes the base's cleanup mark from the index. While the journal's goroutine
// runs, only that calls it.
func (s *Snapshotter) updateMark(ctx context.Context, list string) error {
	now := time.Now()
	next := Mark{Due: s.index.due(s.config.CacheKeep, s.config.CacheMaxBytes, now), List: list}
	if s.cleanupMark.IsDue(now) && next.IsDue(now) {
		next.Due = s.cleanupMark.Due // saves a write: a time in the past has no meaning
	}
	return s.writeMark(ctx, next)
}

// writeMark writes a mark unless the base has it already.
func (s *Snapshotter) writeMark(ctx context.Context, next Mark) error {
	if s.cleanupMark.String() == next.String() && !s.cleanupMarkUnsure {
		return nil
	}
	s.cleanupMarkUnsure = true // a failed call may have written it
	if err := s.pool.Mark(ctx, s.config.Base.String(), CleanupProperty, next.String()); err != nil {
		return err
	}
	s.cleanupMark, s.cleanupMarkUnsure = next, false
	return nil
}

// readMark reads the base's mark from a listing. Then it removes the list's hash from the
// mark: the saved cleanup list becomes invalid before anything else is changed.
func (s *Snapshotter) readMark(ctx context.Context, list []zfs.Dataset) error {
	for _, d := range list {
		if d.Name == s.config.Base.String() {
			s.cleanupMark = ParseMark(d.Props[CleanupProperty])
		}
	}
	return poolError("open", s.writeMark(ctx, Mark{Due: s.cleanupMark.Due}))
}

// due returns the time from which a cleanup has something to destroy; zero for never.
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
			// A cleanup measures templates that are not measured yet.
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
