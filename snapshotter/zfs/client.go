package zfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Choice says how a client talks to ZFS.
type Choice string

const (
	// Auto is Native where the module's release is known and passes a
	// self-test, else Command.
	Auto Choice = "auto"
	// Native calls the kernel module.
	Native Choice = "native"
	// Command runs the zfs command.
	Command Choice = "command"
)

// Check refuses a word that is no choice.
func (c Choice) Check() error {
	switch c {
	case Auto, Native, Command:
		return nil
	}
	return fmt.Errorf("%q is none of %s, %s, %s", string(c), Auto, Native, Command)
}

// Client speaks to the ZFS of this machine. It is safe for use by any number of
// goroutines.
type Client struct {
	pool   string
	prefix string // of the user properties that are listed
	driver driver
	// clones tells whether channel programs can clone (2.4 and later).
	clones bool
	// readOnly reports that the pool is imported read-only.
	readOnly bool
	kind     Choice
	why      error
	watch    func(point string)
}

// Open returns a client for the pool that filesystem lies in, after finding out what this
// release of ZFS can do. The native client tries itself on filesystem, which need not
// exist yet. Listings hold user properties whose names begin with prefix.
// It fails with ErrUnavailable where there is no ZFS, or not the one that was
// chosen, and with ErrNotFound where there is no such pool.
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
		c.why = err
	}
	c.kind, c.driver = Command, &commands{pool: c.pool}
	return nil
}

// Kind answers what the client talks to ZFS by, Native or Command, and where
// Auto did not come to Native, why.
func (c *Client) Kind() (Choice, error) { return c.kind, c.why }

// Close ends the client. No other method may be under way.
func (c *Client) Close() error { return c.driver.close() }

// Hold hands file to every command that is run from now on, for as long as it
// runs. A command outlives a process that is killed; a lock on the file then
// does so too, and nobody else begins before it has ended. (A native call has
// no need of it: the kernel closes a process's files after its last call.)
// Call it before any other method is used.
func (c *Client) Hold(file *os.File) {
	switch d := c.unwatched().(type) {
	case *commands:
		d.held = file
	case *native:
		d.held = file
	}
}

// Watch has fn called before and after every call to ZFS, with a word for it
// such as "before program commit". Tests stop the process there.
func (c *Client) Watch(fn func(point string)) {
	c.watch = fn
	c.driver = watched{driver: c.driver, at: fn}
}

// probe runs a program that changes nothing and waits for no txg. It finds out
// whether clones are there, and fails where the pool or the module is not. In a pool
// that is imported read-only the kernel runs no program.
func (c *Client) probe(ctx context.Context) error {
	const script = `return { clone = zfs.sync.clone ~= nil }`
	found, err := c.driver.program(ctx, "probe", c.pool, script, readOnly, nil)
	c.clones = found.flag("clone")
	if errors.Is(err, ErrReadOnly) {
		c.readOnly = true
		return nil
	}
	return err
}

// ReadOnly reports whether the pool is imported read-only. Nothing in it changes then, and
// what changes something fails with ErrReadOnly.
func (c *Client) ReadOnly() bool { return c.readOnly }

// AtomicClone tells whether a clone and its properties are one transaction.
// Where they are not, a crash can leave a clone without its properties.
func (c *Client) AtomicClone() bool { return c.clones }

// inPool refuses a name outside the client's pool: a channel program runs in
// one pool, and a name elsewhere is a mistake worth a clear word.
func (c *Client) inPool(op, name string) error {
	if name == c.pool || strings.HasPrefix(name, c.pool+"/") {
		return nil
	}
	return &Error{Op: op, Dataset: name, Kind: ErrInvalid, Detail: fmt.Sprintf("not in pool %s", c.pool)}
}
