//go:build linux

package minimal

import (
	"bytes"
	"context"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
)

// Empty is a snapshotter that does nothing: every snapshot is one directory, every call
// succeeds, and none is remembered.
type Empty struct {
	// Dir is what all mounts bind.
	Dir string
}

func (e Empty) mounts(readonly bool) []mount.Mount {
	options := []string{"rbind", "rw"}
	if readonly {
		options[1] = "ro"
	}
	return []mount.Mount{{Type: "bind", Source: e.Dir, Options: options}}
}

// Stat returns the same for every key.
func (Empty) Stat(_ context.Context, key string) (snapshots.Info, error) {
	return snapshots.Info{Name: key, Kind: snapshots.KindActive}, nil
}

// Update returns what it was given.
func (Empty) Update(_ context.Context, info snapshots.Info, _ ...string) (snapshots.Info, error) {
	return info, nil
}

// Usage returns no usage.
func (Empty) Usage(context.Context, string) (snapshots.Usage, error) { return snapshots.Usage{}, nil }

// Mounts returns the bind mount.
func (e Empty) Mounts(context.Context, string) ([]mount.Mount, error) { return e.mounts(false), nil }

// Prepare returns the bind mount.
func (e Empty) Prepare(context.Context, string, string, ...snapshots.Opt) ([]mount.Mount, error) {
	return e.mounts(false), nil
}

// View returns the bind mount, read-only.
func (e Empty) View(context.Context, string, string, ...snapshots.Opt) ([]mount.Mount, error) {
	return e.mounts(true), nil
}

// Commit does nothing.
func (Empty) Commit(context.Context, string, string, ...snapshots.Opt) error { return nil }

// Remove does nothing.
func (Empty) Remove(context.Context, string) error { return nil }

// Walk finds nothing, so that containerd's collections have nothing to remove.
func (Empty) Walk(context.Context, snapshots.WalkFunc, ...string) error { return nil }

// Close does nothing.
func (Empty) Close() error { return nil }

// recordSize is about that of a snapshot's record.
const recordSize = 400

var record = append(bytes.Repeat([]byte("r"), recordSize-1), '\n')

// Logging is Empty, and each change of a snapshot appends a record to a log.
type Logging struct {
	Empty
	Log *Log
}

// Prepare appends a record.
func (l Logging) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := l.Log.Append(record); err != nil {
		return nil, err
	}
	return l.Empty.Prepare(ctx, key, parent, opts...)
}

// View appends a record.
func (l Logging) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := l.Log.Append(record); err != nil {
		return nil, err
	}
	return l.Empty.View(ctx, key, parent, opts...)
}

// Commit appends a record.
func (l Logging) Commit(context.Context, string, string, ...snapshots.Opt) error {
	return l.Log.Append(record)
}

// Close closes the log.
func (l Logging) Close() error { return l.Log.Close() }

var (
	_ snapshots.Snapshotter = Empty{}
	_ snapshots.Snapshotter = Logging{}
)
