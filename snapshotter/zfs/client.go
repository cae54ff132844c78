package zfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Choice is how a client calls ZFS.
type Choice string

const (
	// Auto is Native if the release of the module is supported and passes a self-test,
	// and Command otherwise.
	Auto Choice = "auto"
	// Native calls the kernel module.
	Native Choice = "native"
	// Command runs the zfs command.
	Command Choice = "command"
)

// Check returns an error for an unknown choice.
func (c Choice) Check() error {
	switch c {
	case Auto, Native, Command:
		return nil
	}
	return fmt.Errorf("unknown choice %q: use %s, %s or %s", string(c), Auto, Native, Command)
}

// Client calls the ZFS of this machine. It is safe for use by any number of
// goroutines.
type Client struct {
	pool   string
	prefix string // of the listed user properties
	driver driver
	// clones is true if channel programs can clone (2.4 and later). Otherwise a crash can
	// leave a clone without its properties.
	clones bool
	// readOnly is true if the pool is imported read-only.
	readOnly bool
	kind     Choice
	whyNot   error // why Auto did not choose Native
	watch    func(point string)
}

// Open returns a client for the pool of filesystem, after probing the release of ZFS.
// The native client runs its self-test on filesystem, which need not exist. Listings
// have the user properties whose names begin with prefix. Open fails with
// ErrUnavailable if ZFS, or the chosen client, is not available, and with ErrNotFound
// if the pool does not exist.
func Open(ctx context.Context, filesystem, prefix string, choice Choice) (*Client, error) {
	if err := checkFilesystem("open", filesystem); err != nil {
		return nil, err
	}
	pool, _, _ := strings.Cut(filesystem, "/")
	if err := choice.Check(); err != nil {
		return nil, &Error{Op: "open", Dataset: pool, Kind: ErrInvalid, Detail: "client " + err.Error()}
	}
	c := &Client{pool: pool, prefix: prefix}
	if err := c.choose(ctx, filesystem, choice); err != nil {
		return nil, err
	}
	if err := c.probe(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Client) choose(ctx context.Context, filesystem string, choice Choice) error {
	if choice != Command {
		n, err := openNative(ctx, c.pool, filesystem)
		if err == nil {
			c.kind, c.driver = Native, n
			return nil
		}
		if choice == Native {
			return err
		}
		c.whyNot = err
	}
	c.kind, c.driver = Command, &commands{pool: c.pool}
	return nil
}

// Kind returns how the client calls ZFS, Native or Command, and why Auto did not
// choose Native.
func (c *Client) Kind() (Choice, error) { return c.kind, c.whyNot }

// Close closes the client. No other method may be running.
func (c *Client) Close() error { return c.driver.close() }

// Hold passes file to every command that the client runs from now on. A command
// outlives a process that is killed; so does a lock on the file, and the next process
// waits for the command. Native calls do not need that: the kernel closes the files of
// a process after its last call. Hold must be called before any other method.
func (c *Client) Hold(file *os.File) {
	c.command().held = file
}

// command returns the commands. They set up a base with either driver, because they
// know every property and how to mount.
func (c *Client) command() *commands {
	if n, ok := c.driver.(*native); ok {
		return n.commands
	}
	return c.driver.(*commands)
}

// Watch makes the client call fn before and after every call to ZFS, with a name such
// as "before program commit". Tests stop the process there.
func (c *Client) Watch(fn func(point string)) { c.watch = fn }

// around reports a call to ZFS to the function that Watch was given.
func (c *Client) around(call string) (after func()) {
	if c.watch == nil {
		return func() {}
	}
	c.watch("before " + call)
	return func() { c.watch("after " + call) }
}

// program runs a channel program. op is for Watch and for the error of a program that
// did not run.
func (c *Client) program(ctx context.Context, op, dataset, script string, m mode, argv []string) (table, error) {
	defer c.around("program " + op)()
	return c.driver.program(ctx, op, dataset, script, m, argv)
}

// probe runs a program that changes nothing and waits for no txg. It finds out whether
// programs can clone, and fails if the pool or the module is not available. In a pool
// that is imported read-only the kernel runs no program.
func (c *Client) probe(ctx context.Context) error {
	const script = `return { clone = zfs.sync.clone ~= nil }`
	found, err := c.program(ctx, "probe", c.pool, script, readOnly, nil)
	c.clones = found.flag("clone")
	if errors.Is(err, ErrReadOnly) {
		c.readOnly = true
		return nil
	}
	return err
}

// ReadOnly reports whether the pool is imported read-only. Every change of it fails
// with ErrReadOnly.
func (c *Client) ReadOnly() bool { return c.readOnly }

// inPool returns an error for a name outside of the client's pool, in which alone a
// channel program runs.
func (c *Client) inPool(op, name string) error {
	if name == c.pool || strings.HasPrefix(name, c.pool+"/") {
		return nil
	}
	return &Error{Op: op, Dataset: name, Kind: ErrInvalid, Detail: "not in pool " + c.pool}
}
