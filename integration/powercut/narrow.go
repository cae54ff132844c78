//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/integration/powercut/ledger"
)

// A load with little room: two workers unpack layers of which one fits. So a layer
// fits where the others are cached and are evicted, and does not where one of them is used.
const (
	mib           = 1 << 20
	narrowWorkers = 2
	narrowLayers  = 3
	narrowSize    = 3 // MiB
	narrowRoom    = 5 * mib
)

// loadNarrowly has workers unpack layers through the daemon's differ, under a quota.
func (m *machine) loadNarrowly(ctx context.Context, c *client, found map[string]model.Snapshot) error {
	all := make(map[string]ocispec.Descriptor)
	for i := range narrowLayers {
		chain := m.worker(c, 0).chain(images+i, 1)
		layer, err := m.layers.add(ctx, chain, narrowSize)
		if err != nil {
			return err
		}
		all[chain] = layer
	}
	// What the recovery has replayed and written is not in the figures before that.
	if _, err := command(ctx, "zpool", "sync", poolName); err != nil {
		return err
	}
	used, err := command(ctx, "zfs", "get", "-Hp", "-o", "value", "used", baseName)
	if err != nil {
		return err
	}
	bytes, err := strconv.ParseInt(strings.TrimSpace(used), 10, 64)
	if err != nil {
		return err
	}
	if _, err := command(ctx, "zfs", "set", fmt.Sprintf("quota=%d", bytes+narrowRoom), baseName); err != nil {
		return err
	}
	return m.untilCut(c, found, narrowWorkers, func(w *worker) error { return w.pullNarrowly(ctx, all) })
}

// pullNarrowly removes one of the layers if the worker has it, and else unpacks it.
func (w *worker) pullNarrowly(ctx context.Context, all map[string]ocispec.Descriptor) error {
	chain := w.chain(images+w.r.IntN(narrowLayers), 1)
	if name, have := w.own.Layer(chain); have {
		return w.drop(ctx, name)
	}
	x := w.extraction(chain, "")
	mounts, snap, err := w.prepare(ctx, x.key, x.parent, x.labels, x.asked(), x.reused)
	switch {
	case errdefs.IsAlreadyExists(err) && x.reused != "":
		return w.adopt(ctx, x, snap)
	case err != nil:
		return err
	}
	if err := w.unpack(ctx, x.key, all[x.chain], mounts); err != nil {
		return w.doesNotFit(ctx, x.key, err)
	}
	// The layer may stand in another runtime than before.
	if mounts, err = w.sn.Mounts(ctx, x.key); err != nil {
		return err
	}
	hash, err := hashOf(ctx, mounts)
	if err != nil {
		return err
	}
	return w.commitLayer(ctx, x, hash)
}

// doesNotFit wants an error of the right kind, and nothing to be left.
func (w *worker) doesNotFit(ctx context.Context, key string, err error) error {
	if !errdefs.IsResourceExhausted(err) {
		return err
	}
	if _, statErr := w.sn.Stat(ctx, key); !errdefs.IsNotFound(statErr) {
		return errors.Join(fmt.Errorf("%q does not fit and Stat says: %w", key, statErr), err)
	}
	return w.notes.Say(ledger.Note{Note: ledger.Sees, Name: key})
}
