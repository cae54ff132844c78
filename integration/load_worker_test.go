package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// loadSnap is what a worker knows of a snapshot of its own.
type loadSnap struct {
	kind    snapshots.Kind
	parent  string
	labels  map[string]string
	content string // of the file "content"
	shared  bool   // a layer that others find, and may stand on
}

// loadWorker does one thing after another in a namespace of its own, beside a
// model of it. Layers of images it shares with all others.
type loadWorker struct {
	sn        snapshots.Snapshotter
	namespace string
	number    int
	r         *rand.Rand
	busy      *atomic.Int64 // mounts that had to be tried again
	own       map[string]loadSnap
	adopted   map[string]string // layers by chain ID, under a name of another worker
}

// maxLoadSnaps is how many snapshots a worker keeps.
const maxLoadSnaps = 12

func (w *loadWorker) step() (what string, err error) {
	if len(w.own) > maxLoadSnaps {
		return "remove", w.remove()
	}
	choices := []struct {
		what   string
		weight int
		do     func() error
	}{
		{"prepare", 3, w.prepare}, {"view", 1, w.view}, {"commit", 3, w.commit}, {"pull", 4, w.pull},
		{"remove", 3, w.remove}, {"update", 1, w.update}, {"write", 2, w.write}, {"usage", 1, w.usage},
		{"walk", 1, w.compareAll}, {"cleanup", 1, w.cleanup}, {"contest", 2, w.contest},
	}
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	n := w.r.IntN(total)
	for _, c := range choices {
		if n -= c.weight; n < 0 {
			return c.what, c.do()
		}
	}
	panic("unreachable")
}

func (w *loadWorker) name(client string) string {
	w.number++
	return fmt.Sprintf("%s/%d/%s", w.namespace, w.number, client)
}

func (w *loadWorker) labels() map[string]string {
	w.number++
	labels := map[string]string{"n": fmt.Sprint(w.number)}
	if w.r.IntN(20) == 0 {
		labels["long"] = strings.Repeat("x", 9000) // a record of two properties
	}
	return labels
}

// pick is one of the worker's snapshots of a kind (KindUnknown for any).
func (w *loadWorker) pick(kind snapshots.Kind) (string, bool) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(w.own)) {
		if kind == snapshots.KindUnknown || w.own[name].kind == kind {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", false
	}
	return names[w.r.IntN(len(names))], true
}

func (w *loadWorker) prepare() error {
	parent, _ := w.pick(snapshots.KindCommitted)
	key, labels := w.name("web"), w.labels()
	if _, err := w.sn.Prepare(context.Background(), key, parent, snapshots.WithLabels(labels)); err != nil {
		return err
	}
	w.own[key] = loadSnap{kind: snapshots.KindActive, parent: parent, labels: labels, content: w.own[parent].content}
	return nil
}

func (w *loadWorker) view() error {
	parent, ok := w.pick(snapshots.KindCommitted)
	if !ok {
		return nil
	}
	key, labels := w.name("view"), w.labels()
	mounts, err := w.sn.View(context.Background(), key, parent, snapshots.WithLabels(labels))
	if err != nil {
		return err
	}
	w.own[key] = loadSnap{kind: snapshots.KindView, parent: parent, labels: labels, content: w.own[parent].content}
	return w.mounted(mounts, func(root string) error { return wantContent(root, w.own[key].content) })
}

func (w *loadWorker) commit() error {
	key, ok := w.pick(snapshots.KindActive)
	if !ok {
		return nil
	}
	name, labels := w.name("saved"), w.labels()
	if err := w.sn.Commit(context.Background(), name, key, snapshots.WithLabels(labels)); err != nil {
		return err
	}
	s := w.own[key]
	delete(w.own, key)
	w.own[name] = loadSnap{kind: snapshots.KindCommitted, parent: s.parent, labels: labels, content: s.content}
	_, err := w.sn.Stat(context.Background(), key)
	return wantKind(err, errdefs.ErrNotFound)
}

func (w *loadWorker) remove() error {
	name, ok := w.pick(snapshots.KindUnknown)
	if !ok {
		return nil
	}
	err := w.sn.Remove(context.Background(), name)
	for _, s := range w.own {
		if s.parent == name {
			return wantKind(err, errdefs.ErrFailedPrecondition)
		}
	}
	if w.own[name].shared && errdefs.IsFailedPrecondition(err) {
		return nil
	}
	delete(w.own, name)
	return err
}

func (w *loadWorker) update() error {
	name, ok := w.pick(snapshots.KindUnknown)
	if !ok {
		return nil
	}
	s := w.own[name]
	s.labels = w.labels()
	info, err := w.sn.Update(context.Background(), snapshots.Info{Name: name, Labels: s.labels})
	if err != nil {
		return err
	}
	w.own[name] = s
	return s.compare(info)
}

// write looks at an active snapshot's content and adds to it.
func (w *loadWorker) write() error {
	key, ok := w.pick(snapshots.KindActive)
	if !ok {
		return nil
	}
	mounts, err := w.sn.Mounts(context.Background(), key)
	if err != nil {
		return err
	}
	return w.append(key, mounts, fmt.Sprintf("%s/%d;", w.namespace, w.number))
}

func (w *loadWorker) append(key string, mounts []mount.Mount, text string) error {
	s := w.own[key]
	err := w.mounted(mounts, func(root string) error {
		if err := wantContent(root, s.content); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(root, "content"), []byte(s.content+text), 0o644)
	})
	s.content += text
	w.own[key] = s
	return err
}

// mounted runs fn in a mounted snapshot. ZFS says EBUSY while a mount of the
// same dataset, here another worker's view of the same layer, is being taken
// away: there is nothing to wait for, so it is tried again, and counted.
func (w *loadWorker) mounted(mounts []mount.Mount, fn func(root string) error) error {
	for deadline := time.Now().Add(harness.Patience); ; time.Sleep(10 * time.Millisecond) {
		inside := false
		err := mount.WithTempMount(context.Background(), mounts, func(root string) error {
			inside = true
			return fn(root)
		})
		if inside || !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		w.busy.Add(1)
	}
}

func (w *loadWorker) usage() error {
	name, ok := w.pick(snapshots.KindUnknown)
	if !ok {
		return nil
	}
	u, err := w.sn.Usage(context.Background(), name)
	if err == nil && (u.Size < 0 || u.Inodes < 0) {
		return fmt.Errorf("%+v", u)
	}
	return err
}

func (w *loadWorker) cleanup() error { return w.sn.(snapshots.Cleaner).Cleanup(context.Background()) }

// compareAll holds everything in the worker's namespace against its model.
func (w *loadWorker) compareAll() error {
	var wrong []error
	seen := 0
	err := w.sn.Walk(context.Background(), func(_ context.Context, info snapshots.Info) error {
		s, mine := w.own[info.Name]
		switch {
		case mine:
			seen++
			wrong = append(wrong, s.compare(info))
		case layout.Namespace(info.Name) == w.namespace:
			wrong = append(wrong, fmt.Errorf("%q: not in the model", info.Name))
		}
		return nil
	})
	if seen != len(w.own) {
		wrong = append(wrong, fmt.Errorf("%d of %d snapshots are there", seen, len(w.own)))
	}
	return errors.Join(append(wrong, err)...)
}

func (s loadSnap) compare(info snapshots.Info) error {
	if info.Kind == s.kind && info.Parent == s.parent && maps.Equal(info.Labels, s.labels) {
		return nil
	}
	return fmt.Errorf("%q: model %.300v, snapshotter %.300v", info.Name, s, info)
}

// contest uses names that all workers use. Its results cannot be foretold,
// but every error is of a kind that the interface speaks of.
func (w *loadWorker) contest() error {
	ctx := context.Background()
	any := func(names ...string) string { return names[w.r.IntN(len(names))] }
	key, name := any("x", "y", "z"), any("p", "q")
	var err error
	switch w.r.IntN(5) {
	case 0:
		_, err = w.sn.Prepare(ctx, key, any("", name))
	case 1:
		_, err = w.sn.View(ctx, key, any("", name))
	case 2:
		err = w.sn.Commit(ctx, name, key)
	case 3:
		_, err = w.sn.Update(ctx, snapshots.Info{Name: any(key, name), Labels: w.labels()})
	default:
		err = w.sn.Remove(ctx, any(key, name))
	}
	for _, kind := range []error{errdefs.ErrAlreadyExists, errdefs.ErrNotFound, errdefs.ErrFailedPrecondition, errdefs.ErrInvalidArgument} {
		if errors.Is(err, kind) {
			return nil
		}
	}
	return err
}

func wantKind(err, kind error) error {
	if errors.Is(err, kind) {
		return nil
	}
	return fmt.Errorf("the error is %v and should be %w", err, kind)
}

func wantContent(root, want string) error {
	got, err := os.ReadFile(filepath.Join(root, "content"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err == nil && string(got) != want {
		err = fmt.Errorf("the content is %q and should be %q", got, want)
	}
	return err
}
