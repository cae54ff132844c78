//go:build linux

package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/integration/model"
)

// worker does one thing after another with snapshots that are its own, and
// stands on those of others.
type worker struct {
	*client
	seed      uint64
	namespace string
	number    int // the one containerd puts into every name
	r         *rand.Rand

	hashes  *hashes
	own     *model.Model
	adopted map[string]string // layers by chain ID under a name of another worker
}

// A worker has room for so many snapshots, and so many of them active: a pool
// that lives through many cuts stays small.
const (
	maxOwn    = 10
	maxActive = 4
)

// work takes one step after the other until something is wrong.
func (w *worker) work(step func(*worker) error) error {
	for {
		if err := step(w); err != nil {
			return fmt.Errorf("worker of namespace %s: %w", w.namespace, err)
		}
	}
}

func (w *worker) step(ctx context.Context) error {
	if w.own.Len() > maxOwn {
		return w.removeOne(ctx)
	}
	switch w.r.IntN(16) {
	case 0, 1, 2, 3, 4:
		return w.pullLayer(ctx)
	case 5, 6:
		return w.container(ctx)
	case 7, 8, 9:
		return w.save(ctx)
	case 10:
		return w.look(ctx)
	case 11, 12:
		return w.relabel(ctx)
	case 13:
		return w.removeOne(ctx)
	case 14:
		return w.replace(ctx)
	default:
		return w.cleanup(ctx)
	}
}

// name is a new backend name, as containerd makes them.
func (w *worker) name(client string) string {
	w.number++
	return fmt.Sprintf("%s/%d/%s", w.namespace, w.number, client)
}

// labels are different every time, and long now and then.
func (w *worker) labels() map[string]string {
	w.number++
	labels := map[string]string{"containerd.io/snapshot/n": fmt.Sprint(w.number)}
	if w.r.IntN(6) == 0 {
		labels["containerd.io/snapshot/long"] = strings.Repeat("ü", 1000+w.r.IntN(8000))
	}
	return labels
}

// pick returns the name of one of the worker's snapshots of some kinds (none for any), or "".
func (w *worker) pick(kinds ...snapshots.Kind) string {
	names := w.own.Names(kinds...)
	if len(names) == 0 {
		return ""
	}
	return names[w.r.IntN(len(names))]
}

// layer returns the name under which the worker has a layer, its own or
// another worker's.
func (w *worker) layer(chain string) (string, bool) {
	if name, ok := w.own.Layer(chain); ok {
		return name, true
	}
	name, ok := w.adopted[chain]
	return name, ok
}

// gone is an error about a parent of another worker, which may remove it at
// any time.
func (w *worker) gone(parent string, err error) bool {
	if _, mine := w.own.Get(parent); mine || parent == "" || !errdefs.IsNotFound(err) {
		return false
	}
	maps.DeleteFunc(w.adopted, func(_, name string) bool { return name == parent })
	return true
}

// removeOne removes anything; what others stand on stays.
func (w *worker) removeOne(ctx context.Context) error {
	if name := w.pick(); name != "" {
		return w.drop(ctx, name)
	}
	return nil
}

func (w *worker) drop(ctx context.Context, name string) error {
	err := w.remove(ctx, name)
	if s, _ := w.own.Get(name); errdefs.IsFailedPrecondition(err) && s.Kind == snapshots.KindCommitted {
		return nil
	}
	if err == nil {
		w.own.Removed(name)
	}
	return err
}

// relabel gives a snapshot other labels, all of them or one.
func (w *worker) relabel(ctx context.Context) error {
	name := w.pick()
	if name == "" {
		return nil
	}
	info, err := w.sn.Stat(ctx, name)
	if err != nil {
		return err
	}
	want, _ := w.own.Get(name)
	if got := model.Listed(info); !got.Equal(want.Record()) {
		return fmt.Errorf("%q is %s and should be %s", name, got, want)
	}
	labels, fields := w.labels(), []string(nil)
	if w.r.IntN(2) == 0 {
		for field := range labels {
			fields = append(fields, "labels."+field)
		}
		for field, value := range info.Labels {
			if _, changed := labels[field]; !changed {
				labels[field] = value
			}
		}
	} else if ref := info.Labels[snapshots.LabelSnapshotRef]; ref != "" {
		labels[snapshots.LabelSnapshotRef] = ref
	}
	snap, err := w.update(ctx, name, want, labels, fields...)
	if err == nil {
		w.own.Put(name, snap)
	}
	return err
}
