package layout

import (
	"strings"
	"time"
)

// CleanupProperty is the property of a base that holds its cleanup mark. It is set while a
// cleanup has, or will have, something to destroy. Its value is a CleanupMark. It is written after
// the change that made the cleanup necessary. After a crash in between, the next start
// writes it.
const CleanupProperty = PropertyPrefix + "cleanup"

// CleanupMark is the cleanup mark of a base. The zero value means that no cleanup is needed.
type CleanupMark struct {
	// Due is the time from which a cleanup is due; zero for never.
	Due time.Time
	// List is the hash of the cleanup list that the last snapshotter saved in Close. It is
	// empty while a snapshotter has the base open.
	List string
}

// ParseCleanupMark parses the value of CleanupProperty; "" is the zero value. If the value is not
// valid, a cleanup is due.
func ParseCleanupMark(value string) CleanupMark {
	if value == "" {
		return CleanupMark{}
	}
	due, list, _ := strings.Cut(value, " ")
	t, err := time.Parse(time.RFC3339, due)
	if err != nil || t.IsZero() {
		return CleanupMark{Due: time.Unix(0, 0).UTC()}
	}
	return CleanupMark{Due: t.UTC(), List: list}
}

func (m CleanupMark) String() string {
	if m.Due.IsZero() {
		return ""
	}
	return strings.TrimSpace(FormatTime(m.Due) + " " + m.List)
}

// IsDue reports whether a cleanup is due.
func (m CleanupMark) IsDue(now time.Time) bool { return !m.Due.IsZero() && !m.Due.After(now) }

// FormatTime formats a time for a property.
func FormatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
