//go:build linux

package contender

import (
	"context"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
)

// Snapshots is what a contender can do. Prepare and View make snapshots of the
// template.
type Snapshots interface {
	// MakeTemplate makes the template and has fill write its files.
	MakeTemplate(ctx context.Context, fill func(root string) error) error
	Prepare(ctx context.Context, key string) error
	View(ctx context.Context, key string) error
	Commit(ctx context.Context, name, key string) error
	Mounts(ctx context.Context, key string) ([]mount.Mount, error)
	Stat(ctx context.Context, key string) error
	Usage(ctx context.Context, key string) error
	// Remove removes snapshots that nothing stands on, and returns when
	// whatever had to be collected for it is collected.
	Remove(ctx context.Context, keys ...string) error
	// Held counts the datasets or directories that it holds on disk.
	Held(ctx context.Context) (int, error)
}

// Contender is a way to hold snapshots, under the name it has in the results.
type Contender struct {
	Name string
	Snapshots
	// PID is the process of the snapshotter, 0 if it has none: a daemon or a containerd.
	// Containerd is that of the containerd before it, which may be the same.
	PID, Containerd int
	// Most is the greatest number of clones it is asked to hold, 0 for any.
	Most int
	// Lacks are operations that mean nothing to it.
	Lacks []string
	// Reclaimed reports whether the space of what was removed is back; nil
	// where that cannot be asked.
	Reclaimed func(context.Context) (bool, error)
	// RunContainer runs a short container to its end; nil where none can be.
	RunContainer func(ctx context.Context, id string) error
	// FirstOutput runs such a container to its end and returns the time until its first
	// output; nil if RunContainer is.
	FirstOutput func(ctx context.Context, id string) (time.Duration, error)
	// Extract prepares the extraction of a new layer of a few files. It returns a function
	// that extracts it, with containerd's sync_fs or without, and commits it, and the name of
	// the committed snapshot; nil if the contender has no differ.
	Extract func(ctx context.Context) (run func(ctx context.Context, syncFS bool) error, name string, err error)
	// Import imports an image from an archive and unpacks it, and RemoveImages removes
	// all images. Both are nil if the contender has no containerd.
	Import       func(ctx context.Context, archive string) error
	RemoveImages func(ctx context.Context) error
}

// Change writes a few files into an active snapshot, as a container does.
func (c *Contender) Change(ctx context.Context, key string) error {
	mounts, err := c.Mounts(ctx, key)
	if err != nil {
		return err
	}
	return mount.WithTempMount(ctx, mounts, writeChanges)
}
