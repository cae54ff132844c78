package zfs

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"
)

// The kinds of errors. An error of this package wraps exactly one of them, or none
// if the package does not know the error of ZFS.
var (
	ErrExists      = errors.New("already exists")
	ErrNotFound    = errors.New("not found")
	ErrBusy        = errors.New("busy")
	ErrHasClones   = errors.New("has clones")
	ErrForeign     = errors.New("has foreign snapshots")
	ErrNoSpace     = errors.New("pool is out of space")
	ErrQuota       = errors.New("quota exceeded")
	ErrPermission  = errors.New("permission denied")
	ErrInvalid     = errors.New("invalid argument")
	ErrSuspended   = errors.New("pool is suspended: 'zpool status' shows why, and 'zpool clear' resumes it when its disks are available")
	ErrUnavailable = errors.New("ZFS is not available")
	ErrReadOnly    = errors.New("pool is imported read-only")
)

// Error is a failed operation on a dataset.
type Error struct {
	Op      string // "clone", "destroy", …
	Dataset string
	Kind    error  // one of the kinds above, or nil
	Detail  string // the message of ZFS, if it says more than the kind
	// SnapshotLost is set by Destroy: the dataset still exists, and its own snapshot
	// was destroyed.
	SnapshotLost bool
}

func (e *Error) Error() string {
	s := fmt.Sprintf("zfs %s %s", e.Op, e.Dataset)
	if e.Kind != nil {
		s += ": " + e.Kind.Error()
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.SnapshotLost {
		s += "; its snapshot was destroyed and could not be taken again, because the file system was modified or the pool is full"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Kind }

// kindOfErrno returns the kind of an errno of a channel program or system call, or
// nil.
func kindOfErrno(errno syscall.Errno) error {
	switch errno {
	case syscall.EEXIST:
		return ErrExists
	case syscall.ENOENT:
		return ErrNotFound
	case syscall.EBUSY:
		return ErrBusy
	case syscall.ENOSPC:
		return ErrNoSpace
	case syscall.EDQUOT:
		return ErrQuota
	case syscall.EPERM, syscall.EACCES, syscall.EROFS:
		return ErrPermission
	case syscall.EINVAL, syscall.ENAMETOOLONG, syscall.E2BIG, syscall.EXDEV:
		return ErrInvalid
	case syscall.EAGAIN:
		return ErrSuspended
	}
	return nil
}

func errnoError(op, dataset string, errno syscall.Errno) *Error {
	kind := kindOfErrno(errno)
	e := &Error{Op: op, Dataset: dataset, Kind: kind}
	if kind == nil || errors.Is(kind, ErrInvalid) || errors.Is(kind, ErrSuspended) || errno == syscall.EROFS {
		e.Detail = errno.Error()
	}
	return e
}

// kindsOfMessage has the kinds of the commands' messages: the exit status is 1 for
// nearly everything. The messages are those of LC_ALL=C; the first match counts.
var kindsOfMessage = []struct {
	message *regexp.Regexp
	kind    error
}{
	{regexp.MustCompile(`dataset already exists|already exists`), ErrExists},
	{regexp.MustCompile(`does not exist|no such pool|no such dataset`), ErrNotFound},
	{regexp.MustCompile(`has dependent clones|has children|dependent clones`), ErrHasClones},
	{regexp.MustCompile(`is busy`), ErrBusy},
	{regexp.MustCompile(`quota exceeded`), ErrQuota},
	{regexp.MustCompile(`out of space|No space left`), ErrNoSpace},
	{regexp.MustCompile(`I/O is currently suspended|pool is suspended`), ErrSuspended},
	{regexp.MustCompile(`modules? cannot be (auto-)?loaded|modules are not loaded|/dev/zfs\b`), ErrUnavailable},
	{regexp.MustCompile(`pool is read-only`), ErrReadOnly},
	{regexp.MustCompile(`[Pp]ermission denied`), ErrPermission},
	{regexp.MustCompile(`invalid|too long|must be|bad `), ErrInvalid},
}

// quoted is a name in a message, which must not be taken for the message.
var quoted = regexp.MustCompile(`'[^']*'`)

func messageError(op, dataset, stderr string) *Error {
	detail := strings.Join(strings.Fields(stderr), " ")
	e := &Error{Op: op, Dataset: dataset, Detail: detail}
	words := quoted.ReplaceAllString(detail, "''")
	for _, row := range kindsOfMessage {
		if row.message.MatchString(words) {
			e.Kind = row.kind
			break
		}
	}
	return e
}
