package ioctl

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// ErrUnsupported is returned by Open for an operating system, byte order or release of
// ZFS that this package does not support.
var ErrUnsupported = errors.New("unsupported ZFS")

// ErrnoProgram is Linux' ECHRNG, which the kernel returns if a channel program failed.
const ErrnoProgram = syscall.Errno(44)

// errnoTexts has the error numbers that ZFS defines, or uses in its own way.
var errnoTexts = map[syscall.Errno]string{
	ErrnoProgram: "channel program failed",
	1025:         "checkpoint is being discarded",
	1026:         "no checkpoint",
	1029:         "call is unknown to this release of ZFS",
	1030:         "argument is unknown to this release of ZFS",
	1031:         "argument is missing",
	1032:         "argument is of the wrong type",
	1033:         "parent is not a file system",
	1038:         "pool is being exported",
	1044:         "bad property value",
}

// Error is a call that failed.
type Error struct {
	Op      string // "clone", "promote", …
	Dataset string // or ""
	// Err is a syscall.Errno, an error of the context, an *nvlist.FormatError, or
	// the reason why the call was not made.
	Err error
	// Message is the message of a channel program or of the kernel, or "".
	Message string
	// Each has, for calls with several snapshots or properties, the errno of each
	// one that failed, if the kernel returned it.
	Each map[string]syscall.Errno
	// More is the number of further errors that did not fit.
	More int
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("zfs " + e.Op)
	if e.Dataset != "" {
		b.WriteString(" " + e.Dataset)
	}
	if e.Err != nil {
		b.WriteString(": " + errText(e.Err))
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Each)) {
		fmt.Fprintf(&b, "; %s: %s", name, errText(e.Each[name]))
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "; and %d more", e.More)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

func errText(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) && errnoTexts[errno] != "" {
		return strings.Replace(err.Error(), errno.Error(), errnoTexts[errno], 1)
	}
	return err.Error()
}

// moreErrors is the name under which the kernel counts the errors that it omitted to
// make a list fit.
const moreErrors = "N_MORE_ERRORS"

// fail wraps the error of a call; nil stays nil.
func fail(op, dataset string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Dataset: dataset, Err: err}
}

// failEach is fail for calls that return a list from names to errnos.
func failEach(op, dataset string, err error, c *command) error {
	if err == nil {
		return nil
	}
	e := &Error{Op: op, Dataset: dataset, Err: err}
	reply, ok := c.reply()
	if !ok {
		return e
	}
	for r := nvlist.NewReader(reply); r.Next(); {
		errno, ok := r.Int32()
		switch {
		case !ok:
		case string(r.Name()) == moreErrors:
			e.More = int(errno)
		default:
			if e.Each == nil {
				e.Each = make(map[string]syscall.Errno)
			}
			e.Each[string(r.Name())] = syscall.Errno(errno)
		}
	}
	return e
}
