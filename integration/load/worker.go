package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// worker performs one operation after another in its namespace, on the snapshotter and on
// the model.
type worker struct {
	sn        snapshots.Snapshotter
	namespace string
	number    int
	r         *rand.Rand
	busy      *atomic.Int64     // mounts that were tried again
	model     *model.Model      // of the namespace
	adopted   map[string]string // layers by chain ID, under a name of another worker
}

// maxSnapshots is the number of snapshots above which a worker only removes.
const maxSnapshots = 12

func (w *worker) step() (what string, err error) {
	if w.model.Len() > maxSnapshots {
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

func (w *worker) name(client string) string {
	w.number++
	return fmt.Sprintf("%s/%d/%s", w.namespace, w.number, client)
}

func (w *worker) labels() map[string]string {
	w.number++
	labels := map[string]string{"n": fmt.Sprint(w.number)}
	if w.r.IntN(20) == 0 {
		labels["long"] = strings.Repeat("x", 9000) // a record of two properties
	}
	return labels
}

// pick returns the name of one of the worker's snapshots of some kinds (none for any), or "".
func (w *worker) pick(kinds ...snapshots.Kind) string {
	names := w.model.Names(kinds...)
	if len(names) == 0 {
		return ""
	}
	return names[w.r.IntN(len(names))]
}

func (w *worker) content(name string) string {
	s, _ := w.model.Get(name)
	return s.Content
}

// predicted returns an error if got does not have the kind that the model predicted.
func predicted(want, got error) error {
	if errors.Is(got, want) {
		return nil
	}
	return fmt.Errorf("the model returns %w and the snapshotter %w", want, got)
}

func (w *worker) prepare() error {
	parent := w.pick(snapshots.KindCommitted)
	key, labels := w.name("web"), w.labels()
	_, err := w.sn.Prepare(context.Background(), key, parent, snapshots.WithLabels(labels))
	return predicted(w.model.Create(snapshots.KindActive, key, parent, labels), err)
}

func (w *worker) view() error {
	parent := w.pick(snapshots.KindCommitted)
	if parent == "" {
		return nil
	}
	key, labels := w.name("view"), w.labels()
	mounts, err := w.sn.View(context.Background(), key, parent, snapshots.WithLabels(labels))
	if err := predicted(w.model.Create(snapshots.KindView, key, parent, labels), err); err != nil {
		return err
	}
	return w.mounted(mounts, func(root string) error { return compareContent(root, w.content(key)) })
}

func (w *worker) commit() error {
	key := w.pick(snapshots.KindActive)
	if key == "" {
		return nil
	}
	name, labels := w.name("saved"), w.labels()
	err := w.sn.Commit(context.Background(), name, key, snapshots.WithLabels(labels))
	if err := predicted(w.model.Commit(name, key, labels), err); err != nil {
		return err
	}
	_, err = w.sn.Stat(context.Background(), key)
	return predicted(errdefs.ErrNotFound, err)
}

func (w *worker) remove() error {
	name := w.pick()
	if name == "" {
		return nil
	}
	err := w.sn.Remove(context.Background(), name)
	if layout.IsLayerName(name) && errdefs.IsFailedPrecondition(err) {
		return nil // another worker's snapshot may have it as its parent
	}
	return predicted(w.model.Remove(name), err)
}

func (w *worker) update() error {
	name := w.pick()
	if name == "" {
		return nil
	}
	labels := w.labels()
	info, err := w.sn.Update(context.Background(), snapshots.Info{Name: name, Labels: labels})
	if err := predicted(w.model.Update(name, labels), err); err != nil {
		return err
	}
	if want, _ := w.model.Get(name); !want.Record().Equal(model.Listed(info)) {
		return fmt.Errorf("%q: model %v, snapshotter %v", name, want.Record(), model.Listed(info))
	}
	return nil
}

// write compares the content of an active snapshot and appends to it.
func (w *worker) write() error {
	key := w.pick(snapshots.KindActive)
	if key == "" {
		return nil
	}
	mounts, err := w.sn.Mounts(context.Background(), key)
	if err != nil {
		return err
	}
	return w.append(key, mounts, fmt.Sprintf("%s/%d;", w.namespace, w.number))
}

func (w *worker) append(key string, mounts []mount.Mount, text string) error {
	before := w.content(key)
	w.model.Write(key, text)
	return w.mounted(mounts, func(root string) error {
		if err := compareContent(root, before); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(root, "content"), []byte(before+text), 0o644)
	})
}

// mounted calls fn with the directory where a snapshot is mounted meanwhile. ZFS returns
// EBUSY while a mount of the same dataset ends, here another worker's view of the same
// layer. There is no event to wait for, so mounted tries again, and counts that.
func (w *worker) mounted(mounts []mount.Mount, fn func(root string) error) error {
	for deadline := time.Now().Add(harness.Patience); ; time.Sleep(10 * time.Millisecond) {
		isMounted := false
		err := mount.WithTempMount(context.Background(), mounts, func(root string) error {
			isMounted = true
			return fn(root)
		})
		if isMounted || !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
		w.busy.Add(1)
	}
}

func (w *worker) usage() error {
	name := w.pick()
	if name == "" {
		return nil
	}
	u, err := w.sn.Usage(context.Background(), name)
	if err == nil && (u.Size < 0 || u.Inodes < 0) {
		return fmt.Errorf("%+v", u)
	}
	return err
}

func (w *worker) cleanup() error {
	w.model.Cleanup()
	return w.sn.(snapshots.Cleaner).Cleanup(context.Background())
}

// compareAll compares all snapshots of the worker's namespace with the model.
func (w *worker) compareAll() error {
	found := make(map[string]model.Snapshot)
	err := w.sn.Walk(context.Background(), func(_ context.Context, info snapshots.Info) error {
		if layout.Namespace(info.Name) == w.namespace {
			found[info.Name] = model.Listed(info)
		}
		return nil
	})
	if different := model.Differences(model.Records(w.model.Visible()), found); len(different) > 0 {
		err = errors.Join(err, errors.New(strings.Join(different, "\n")))
	}
	return err
}

// contest uses names that all workers use. Its results cannot be predicted, but every error
// has a kind of the interface.
func (w *worker) contest() error {
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
	if model.HasKind(err) && !errdefs.IsResourceExhausted(err) {
		return nil
	}
	return err
}

func compareContent(root, want string) error {
	got, err := os.ReadFile(filepath.Join(root, "content"))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err == nil && string(got) != want {
		err = fmt.Errorf("the content is %q and should be %q", got, want)
	}
	return err
}
