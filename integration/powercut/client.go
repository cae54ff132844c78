//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/integration/powercut/ledger"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// client is a snapshotter that notes what is asked of it and what it returns.
// Questions that change nothing are not noted.
type client struct {
	sn      snapshots.Snapshotter
	applier diff.Applier
	// clean has the daemon clean up now, whatever its mode.
	clean  func(context.Context) error
	notes  *ledger.Writer
	cutter *cutter
}

// request notes n, calls the snapshotter and notes the result.
func (c *client) request(n ledger.Note, call func() error) error {
	id, err := c.notes.Ask(n)
	if err != nil {
		return err
	}
	c.cutter.request()
	err = call()
	if noteErr := c.notes.Say(ledger.Note{Note: ledger.Returned, ID: id, Op: n.Op, Failed: kindOf(err)}); noteErr != nil {
		return noteErr
	}
	if err != nil {
		return fmt.Errorf("%s of %q: %w", n.Op, n.Key, err)
	}
	return nil
}

// kindOf is a word for an error that a ledger understands.
func kindOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errdefs.IsAlreadyExists(err):
		return ledger.Exists
	default:
		return err.Error()
	}
}

// prepare asks for an active snapshot. If layer is a chain ID, the result may
// be that the layer is there, as reused or as another name.
func (c *client) prepare(ctx context.Context, key, parent string, labels map[string]string, layer, reused string) ([]mount.Mount, model.Snapshot, error) {
	snap := model.Snapshot{Kind: snapshots.KindActive, Parent: parent, Labels: model.Short(labels)}
	var mounts []mount.Mount
	n := ledger.Note{Op: model.Prepare, Key: key, Name: reused, Layer: layer, Snap: &snap, Extraction: isExtraction(key, labels)}
	err := c.request(n, func() (err error) {
		mounts, err = c.sn.Prepare(ctx, key, parent, snapshots.WithLabels(labels))
		return err
	})
	return mounts, snap, err
}

// isExtraction reports whether a snapshotter takes an active snapshot for an extraction.
func isExtraction(key string, labels map[string]string) bool {
	_, ok := layout.ExtractTarget(layout.ClientName(key))
	return ok || labels[snapshots.LabelSnapshotRef] != ""
}

func (c *client) view(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, model.Snapshot, error) {
	snap := model.Snapshot{Kind: snapshots.KindView, Parent: parent, Labels: model.Short(labels)}
	var mounts []mount.Mount
	err := c.request(ledger.Note{Op: model.View, Key: key, Snap: &snap}, func() (err error) {
		mounts, err = c.sn.View(ctx, key, parent, snapshots.WithLabels(labels))
		return err
	})
	return mounts, snap, err
}

// unpack asks for a layer to be put into what stands under key.
func (c *client) unpack(ctx context.Context, key string, layer ocispec.Descriptor, mounts []mount.Mount) error {
	return c.request(ledger.Note{Op: model.Unpack, Key: key}, func() error {
		_, err := c.applier.Apply(ctx, layer, mounts)
		return err
	})
}

// commit asks for name to be made of key, whose tree has the hash.
func (c *client) commit(ctx context.Context, name, key, parent, hash, layer string, labels map[string]string) (model.Snapshot, error) {
	snap := model.Snapshot{Kind: snapshots.KindCommitted, Parent: parent, Labels: model.Short(labels), Content: hash}
	return snap, c.request(ledger.Note{Op: model.Commit, Key: key, Name: name, Layer: layer, Snap: &snap}, func() error {
		return c.sn.Commit(ctx, name, key, snapshots.WithLabels(labels))
	})
}

// update replaces the labels of what is snap, all of them or those of fields.
func (c *client) update(ctx context.Context, name string, snap model.Snapshot, labels map[string]string, fields ...string) (model.Snapshot, error) {
	snap.Labels = model.Short(labels)
	return snap, c.request(ledger.Note{Op: model.Update, Key: name, Snap: &snap}, func() error {
		_, err := c.sn.Update(ctx, snapshots.Info{Name: name, Labels: labels}, fields...)
		return err
	})
}

func (c *client) remove(ctx context.Context, key string) error {
	return c.request(ledger.Note{Op: model.Remove, Key: key}, func() error { return c.sn.Remove(ctx, key) })
}

func (c *client) cleanup(ctx context.Context) error {
	return c.request(ledger.Note{Op: model.Cleanup}, func() error { return c.clean(ctx) })
}

// everything returns what a listing shows.
func (c *client) everything(ctx context.Context) (map[string]model.Snapshot, error) {
	found := make(map[string]model.Snapshot)
	err := c.sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		found[info.Name] = model.Listed(info)
		return nil
	})
	return found, err
}
