package zfs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Client speaks to the ZFS of this machine by running its commands. It is safe
// for use by any number of goroutines.
type Client struct {
	pool   string
	prefix string // of the user properties that are listed
	// clones tells whether channel programs can clone (2.4 and later).
	clones bool
	held   *os.File
}

// Hold hands file to every command that is run from now on, for as long as it
// runs. A command outlives a process that is killed; a lock on the file then
// does so too, and nobody else begins before it has ended. Call it before any
// other method is used.
func (c *Client) Hold(file *os.File) { c.held = file }

// Open answers a client for the pool, after finding out what this release of
// ZFS can do. Listings tell of user properties whose names begin with prefix.
// It fails with ErrUnavailable where there is no ZFS and with
// ErrNotFound where there is no such pool.
func Open(ctx context.Context, pool, prefix string) (*Client, error) {
	if err := checkFilesystem("open", pool); err != nil {
		return nil, err
	}
	if strings.Contains(pool, "/") {
		return nil, &Error{Op: "open", Dataset: pool, Kind: ErrInvalid, Detail: "a pool's name has no slash"}
	}
	if _, err := exec.LookPath("zfs"); err != nil {
		return nil, &Error{Op: "open", Dataset: pool, Kind: ErrUnavailable,
			Detail: "the zfs command is not installed (Debian: zfsutils-linux and zfs-dkms)"}
	}
	c := &Client{pool: pool, prefix: prefix}
	if err := c.probe(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// probe runs a program that changes nothing and waits for no txg. It answers
// whether clones are there, and fails where the pool or the module is not.
func (c *Client) probe(ctx context.Context) error {
	var found struct{ Clone bool }
	const script = `return { Clone = zfs.sync.clone ~= nil }`
	if err := c.program(ctx, "probe", c.pool, script, readOnly, nil, &found); err != nil {
		return err
	}
	c.clones = found.Clone
	return nil
}

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
