package machine

import (
	"errors"
	"strings"
)

// ErrTimeout is in the chain of the error of a command that took too long.
var ErrTimeout = errors.New("the time limit is over")

// GuestError is a guest that did not end as it should.
type GuestError struct {
	Reason error
	// Console has the last lines of its console, QEMU what that complained of.
	Console, QEMU string
}

func (e *GuestError) Error() string {
	return e.Reason.Error()
}

func (e *GuestError) Unwrap() error {
	return e.Reason
}

// Details is what a person needs to find the reason.
func (e *GuestError) Details() string {
	var b strings.Builder
	for _, part := range []struct{ title, text string }{
		{"QEMU said", e.QEMU}, {"the last lines of the guest's console", e.Console},
	} {
		if part.text != "" {
			b.WriteString("--- " + part.title + "\n" + part.text + "\n")
		}
	}
	return b.String()
}
