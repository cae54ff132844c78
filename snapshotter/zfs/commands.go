package zfs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/ioctl"
)

// commands is the driver that runs the zfs command.
type commands struct {
	pool string
	held *os.File // see Hold
}

// waitDelay bounds how long a killed command may keep its pipes open.
const waitDelay = 5 * time.Second

// run runs the zfs command and returns its output. op and dataset are for the error.
func (c *commands) run(ctx context.Context, op, dataset string, stdin io.Reader, args ...string) ([]byte, error) {
	return c.exec(ctx, "zfs", op, dataset, stdin, args...)
}

func (c *commands) exec(ctx context.Context, program, op, dataset string, stdin io.Reader, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	// Messages are classified by their text, which is fixed in the C locale only.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LANGUAGE=C")
	// A signal to our process group, such as Ctrl-C, must not end the command,
	// which would leave part of its work.
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
		return nil, &Error{Op: op, Dataset: dataset, Kind: ErrUnavailable,
			Detail: "the " + program + " command is not installed (Debian: zfsutils-linux and zfs-dkms)"}
	case stderr.Len() == 0:
		return nil, &Error{Op: op, Dataset: dataset, Detail: err.Error()}
	default:
		return nil, messageError(op, dataset, stderr.String())
	}
}

func (c *commands) program(ctx context.Context, op, dataset, script string, m mode, argv []string) (table, error) {
	args := []string{"program", "-j", "-t", strconv.Itoa(ioctl.MaxInstructions), "-m", strconv.Itoa(ioctl.MaxMemory)}
	if m == readOnly {
		args = append(args, "-n")
	}
	args = append(args, "--", c.pool, "-")
	out, err := c.run(ctx, op, dataset, strings.NewReader(withArguments(script, argv)), args...)
	if err != nil {
		return nil, err
	}
	result, err := parseResult(out)
	if err != nil {
		return nil, &Error{Op: op, Dataset: dataset, Detail: err.Error()}
	}
	return result, nil
}

// withArguments returns a script that contains its arguments. A command line is
// visible to every user of the machine, and the arguments include the labels of
// snapshots.
func withArguments(script string, argv []string) string {
	var b strings.Builder
	b.WriteString("local function script(...)\n" + script + "\nend\nreturn script({ argv = {\n")
	for _, arg := range argv {
		b.WriteString(luaString(arg) + ",\n")
	}
	b.WriteString("} })\n")
	return b.String()
}

// luaString returns a string literal of Lua, in printable ASCII on one line.
func luaString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			fmt.Fprintf(&b, `\%03d`, c)
		} else {
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// parseResult parses the output of 'zfs program -j'. An empty table is printed as an
// empty object or not at all.
func parseResult(out []byte) (table, error) {
	dec := json.NewDecoder(bytes.NewReader(out))
	dec.UseNumber()
	var result struct{ Return any }
	if err := dec.Decode(&result); err != nil {
		return nil, fmt.Errorf("the result of the channel program is not JSON: %w", err)
	}
	if result.Return == nil {
		return table{}, nil
	}
	t, ok := fromJSON(result.Return).(table)
	if !ok {
		return nil, errors.New("unexpected result of the channel program: not a table")
	}
	return t, nil
}

func fromJSON(value any) any {
	switch v := value.(type) {
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			return v.String()
		}
		return n
	case map[string]any:
		t := make(table, len(v))
		for name, inner := range v {
			t[name] = fromJSON(inner)
		}
		return t
	default:
		return value
	}
}

// clone passes native properties to the command and sets user properties by a program,
// because a command line is visible to every user of the machine.
func (c *commands) clone(ctx context.Context, snapshot, name string, sets []Op) error {
	native := make(map[string]string)
	var argv []string
	for _, op := range sets {
		if op.native() {
			native[op.prop] = op.value
		} else {
			argv = append(argv, op.words()...)
		}
	}
	args := append([]string{"clone"}, options(native)...)
	if _, err := c.run(ctx, "clone", name, nil, append(args, snapshot, name)...); err != nil {
		return err
	}
	if len(argv) == 0 {
		return nil
	}
	err := c.errno(ctx, "set", name, applyScript, argv)
	if err != nil {
		err = errors.Join(err, c.errno(ctx, "roll back", name, rollbackScript, []string{name}))
	}
	return err
}

// errno runs a program that returns an errno for the dataset.
func (c *commands) errno(ctx context.Context, op, dataset, script string, argv []string) error {
	found, err := c.program(ctx, op, dataset, script, readWrite, argv)
	if err != nil {
		return err
	}
	return found.err(op, dataset)
}

func (c *commands) written(ctx context.Context, filesystem, snapshot string) (uint64, error) {
	out, err := c.run(ctx, "written", filesystem, nil, "get", "-Hp", "-o", "value", "written@"+snapshot, filesystem)
	if err != nil {
		return 0, err
	}
	bytes, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return 0, &Error{Op: "written", Dataset: filesystem, Detail: "since " + snapshot + ": " + err.Error()}
	}
	return bytes, nil
}

func (c *commands) syncDisabled(ctx context.Context, filesystem string) (bool, error) {
	out, err := c.run(ctx, "get", filesystem, nil, "get", "-H", "-o", "value", "sync", filesystem)
	return strings.TrimSpace(string(out)) == "disabled", err
}

func (c *commands) space(ctx context.Context, filesystem string) (Space, error) {
	out, err := c.run(ctx, "space", filesystem, nil, "get", "-Hp", "-o", "value", "used,referenced,available,quota", filesystem)
	if err != nil {
		return Space{}, err
	}
	var s Space
	if n, err := fmt.Sscanf(string(out), "%d\n%d\n%d\n%d\n", &s.Used, &s.Referenced, &s.Available, &s.Quota); n != 4 || err != nil {
		return Space{}, &Error{Op: "space", Dataset: filesystem, Detail: fmt.Sprintf("unexpected output %q", out)}
	}
	return s, nil
}

func (c *commands) poolState(ctx context.Context) (PoolState, error) {
	out, err := c.exec(ctx, "zpool", "state", c.pool, nil, "get", "-Hp", "-o", "property,value", "freeing,checkpoint,health", c.pool)
	if err != nil {
		return PoolState{}, err
	}
	var s PoolState
	for _, row := range lines(out) {
		if len(row) != 2 {
			continue
		}
		switch row[0] {
		case "freeing":
			s.Freeing, err = strconv.ParseUint(row[1], 10, 64)
		case "checkpoint":
			s.Checkpoint = row[1] != "-"
		case "health":
			s.Suspended = row[1] == "SUSPENDED"
		}
	}
	if err != nil {
		return PoolState{}, &Error{Op: "state", Dataset: c.pool, Detail: fmt.Sprintf("unexpected output %q", out)}
	}
	return s, nil
}

func (c *commands) waitFreed(ctx context.Context) error {
	_, err := c.exec(ctx, "zpool", "wait", c.pool, nil, "wait", "-t", "free", c.pool)
	for range deferredGroups {
		if err == nil {
			_, err = c.exec(ctx, "zpool", "sync", c.pool, nil, "sync", c.pool)
		}
	}
	return err
}

// set needs 'zfs set -u', which exists since 2.2.
func (c *commands) set(ctx context.Context, filesystem string, props map[string]string) error {
	args := []string{"set", "-u"}
	for _, name := range slices.Sorted(maps.Keys(props)) {
		args = append(args, name+"="+props[name])
	}
	_, err := c.run(ctx, "set", filesystem, nil, append(args, filesystem)...)
	return err
}

func (c *commands) close() error { return nil }

// lines splits the output of a command into lines of tab-separated fields.
func lines(out []byte) [][]string {
	var rows [][]string
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return slices.Clip(rows)
}
