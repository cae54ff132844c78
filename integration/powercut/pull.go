//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/integration/powercut/ledger"
	"github.com/zfstpl/zfstpl/integration/powercut/tree"
)

// extraction is one layer on its way into the pool.
type extraction struct {
	chain  string
	parent string
	key    string
	reused string // the name the layer gets if it is there already
	labels map[string]string
}

// pullLayer does for the next layer of some image what containerd does.
func (w *worker) pullLayer(ctx context.Context) error {
	x, ok := w.next(w.r.IntN(images))
	if !ok {
		return nil // the image is complete
	}
	mounts, snap, err := w.prepare(ctx, x.key, x.parent, x.labels, x.asked(), x.reused)
	switch {
	case w.gone(x.parent, err):
		return nil
	case errdefs.IsAlreadyExists(err) && x.reused != "":
		return w.adopt(ctx, x, snap)
	case err != nil:
		return err
	}
	return w.extract(ctx, x, mounts)
}

func (w *worker) next(image int) (x extraction, ok bool) {
	for layer := 1; layer <= depth; layer++ {
		x.chain = w.chain(image, layer)
		name, have := w.layer(x.chain)
		if !have {
			break
		}
		x.parent, x.chain = name, ""
	}
	if x.chain == "" {
		return x, false
	}
	return w.extraction(x.chain, x.parent), true
}

// extraction is a layer that is to be asked for.
func (w *worker) extraction(chain, parent string) extraction {
	x := extraction{chain: chain, parent: parent, labels: w.labels()}
	x.key = w.name(fmt.Sprintf("extract-%d-Ab_1 %s", w.number, x.chain))
	if w.r.IntN(4) > 0 { // as all but the oldest ways to pull do
		x.labels[snapshots.LabelSnapshotRef] = x.chain
		x.reused = model.ReusedName(x.key, x.chain)
	}
	return x
}

// asked is the layer that prepare asks for by label.
func (x extraction) asked() string { return x.labels[snapshots.LabelSnapshotRef] }

// adopt finds the layer as containerd does: a record of our own that was just
// made, or another worker's.
func (w *worker) adopt(ctx context.Context, x extraction, asked model.Snapshot) error {
	var found []string
	filter := fmt.Sprintf("labels.%q==%s,parent==%q", snapshots.LabelSnapshotRef, x.chain, x.parent)
	err := w.sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted { // and no extraction of it
			found = append(found, info.Name)
		}
		return nil
	}, filter)
	if err != nil {
		return err
	}
	n := ledger.Note{Note: ledger.Sees, Name: x.reused}
	if slices.Contains(found, x.reused) {
		asked.Kind, asked.Content = snapshots.KindCommitted, w.hashes.of(x.chain)
		n.Snap = &asked
		w.own.Put(x.reused, asked)
	} else if len(found) > 0 {
		w.adopted[x.chain] = found[0]
	}
	return w.notes.Say(n)
}

// extract fills the layer and commits it. Most unpackers unmount it before,
// some do not.
func (w *worker) extract(ctx context.Context, x extraction, mounts []mount.Mount) error {
	commit := func(hash string) error { return w.commitLayer(ctx, x, hash) }
	return w.fill(ctx, mounts, w.r.IntN(3) == 0, func(root string) error { return tree.Grow(root, seedOf(x.chain)) }, commit)
}

// commitLayer commits a layer whose tree has the hash.
func (w *worker) commitLayer(ctx context.Context, x extraction, hash string) error {
	labels := w.labels()
	if x.asked() != "" {
		labels[snapshots.LabelSnapshotRef] = x.chain
	}
	name := w.name(x.chain)
	w.hashes.set(x.chain, hash)
	snap, err := w.commit(ctx, name, x.key, x.parent, hash, x.chain, labels)
	if err == nil {
		w.own.Committed(name, x.key, snap)
	}
	return err
}

// fill mounts a snapshot, lets grow change it and hands commit its hash: while
// it is mounted, or after.
func (w *worker) fill(ctx context.Context, mounts []mount.Mount, live bool, grow func(root string) error, commit func(hash string) error) error {
	hash := ""
	err := mounted(ctx, mounts, func(root string) (err error) {
		if err := grow(root); err != nil {
			return err
		}
		if hash, err = tree.Hash(root); err != nil || !live {
			return err
		}
		return commit(hash)
	})
	if err != nil || live {
		return err
	}
	return commit(hash)
}
