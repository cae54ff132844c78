package zfs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// waitDelay bounds how long a killed command may keep its pipes open.
const waitDelay = 5 * time.Second

// run executes the zfs command and answers what it wrote. op and dataset are for
// the error.
func (c *Client) run(ctx context.Context, op, dataset string, stdin io.Reader, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "zfs", args...)
	// Messages are classified by their text, which only the C locale fixes.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LANGUAGE=C")
	// A signal to our process group, such as Ctrl-C, is for us. A command that
	// it ended would leave part of its work.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if c.held != nil {
		cmd.ExtraFiles = []*os.File{c.held}
	}
	cmd.WaitDelay = waitDelay
	err := cmd.Run()
	switch {
	case err == nil:
		return stdout.Bytes(), nil
	case ctx.Err() != nil:
		return nil, &Error{Op: op, Dataset: dataset, Kind: ctx.Err()}
	case errors.Is(err, exec.ErrNotFound):
		return nil, &Error{Op: op, Dataset: dataset, Kind: ErrUnavailable, Detail: err.Error()}
	case stderr.Len() == 0:
		return nil, &Error{Op: op, Dataset: dataset, Detail: err.Error()}
	default:
		return nil, messageError(op, dataset, stderr.String())
	}
}

// mode tells whether a channel program may change the pool. A read-only one
// waits for no txg.
type mode bool

const (
	readOnly  mode = false
	readWrite mode = true
)

// Limits of a channel program: the greatest the kernel allows. They are bounds,
// not reservations.
const (
	maxInstructions = "100000000"
	maxMemory       = "104857600"
)

// program runs a channel program in the client's pool and decodes what it
// returned into result.
func (c *Client) program(ctx context.Context, op, dataset, script string, m mode, argv []string, result any) error {
	args := []string{"program", "-j", "-t", maxInstructions, "-m", maxMemory}
	if m == readOnly {
		args = append(args, "-n")
	}
	// Behind the dashes nothing is an option, whatever a value begins with.
	args = append(args, "--", c.pool, "-")
	args = append(args, argv...)
	out, err := c.run(ctx, op, dataset, strings.NewReader(script), args...)
	if err != nil {
		return err
	}
	var answer struct{ Return json.RawMessage }
	if err := json.Unmarshal(out, &answer); err != nil {
		return &Error{Op: op, Dataset: dataset, Detail: "the channel program's answer is not JSON: " + err.Error()}
	}
	// An empty table comes back as an empty object or not at all.
	if len(answer.Return) == 0 {
		return nil
	}
	if err := json.Unmarshal(answer.Return, result); err != nil {
		return &Error{Op: op, Dataset: dataset, Detail: "unexpected answer of the channel program: " + err.Error()}
	}
	return nil
}

// lines splits a command's output into lines of tab-separated fields.
func lines(out []byte) [][]string {
	var rows [][]string
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return slices.Clip(rows)
}
