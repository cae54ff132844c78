package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
)

// Fixture is what one crash needs: a rig, what was created on it, and the model of that. Its
// operations are performed on the daemon and on the model.
type Fixture struct {
	*Rig
	t       testing.TB
	ctx     context.Context
	model   *model.Model
	before  *state // before the operation of the case
	mounted string // where a snapshot is mounted until the end, or ""
	failed  error  // of the step during which the daemon was killed
}

// shared is what the crashes of a case share.
type shared struct {
	model    *model.Model
	datasets []string
}

func newFixture(t testing.TB, r *Rig) *Fixture {
	t.Helper()
	r.ensureRunning(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*harness.Patience)
	t.Cleanup(cancel)
	return &Fixture{Rig: r, t: t, ctx: ctx, model: model.New(model.Config{ReuseLabel: snapshotter.ReuseLabel})}
}

// setUp creates what the operation of a case needs. What the crashes share is created once.
func (f *Fixture) setUp(c Case) {
	f.t.Helper()
	if f.shared == nil {
		if c.setUpShared != nil {
			c.setUpShared(f)
		}
		f.must(f.cleanup())
		f.shared = &shared{f.model, f.base.Names(f.t)}
	}
	f.model = f.shared.model.Clone()
	if c.setUp != nil {
		c.setUp(f)
	}
	if f.before == nil {
		f.recordState()
	}
}

// tearDown removes everything but what the crashes share, and asserts that nothing else is
// left.
func (f *Fixture) tearDown(t *testing.T) {
	t.Helper()
	wasBusy := f.mounted != "" // a busy dataset is destroyed after a pause
	f.unmount()
	harness.RemoveAll(t, f.sn, f.shared.model.Names()...)
	f.must(f.sn.Cleanup(f.ctx))
	if wasBusy {
		require.Eventually(t, func() bool { return slices.Equal(f.shared.datasets, f.base.Names(t)) }, harness.Patience, 100*time.Millisecond)
	}
	require.Equal(t, f.shared.datasets, f.base.Names(t))
}

// tearDownShared removes what the crashes share.
func (f *Fixture) tearDownShared(t *testing.T) {
	t.Helper()
	harness.RemoveAll(t, f.sn)
	f.must(f.sn.Cleanup(f.ctx))
	require.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, f.base.Names(t))
	f.shared = nil
}

// must fails the test if an operation before or after the crash fails.
func (f *Fixture) must(errs ...error) {
	f.t.Helper()
	require.NoError(f.t, errors.Join(errs...))
}

// follow performs an operation on the model after the daemon returned got, and asserts that
// the model returns an error of the same kind. If the daemon may have been killed, an error
// says nothing about the operation: Run sets the model when it knows what happened.
func (f *Fixture) follow(got error, predict func() error) error {
	f.t.Helper()
	if got == nil || !f.isOrdered && model.HasKind(got) {
		require.Equal(f.t, predict(), model.ErrorKind(got), "the error of the model and that of the daemon")
	}
	return got
}

func (f *Fixture) prepare(key, parent string, labels map[string]string) error {
	f.t.Helper()
	_, err := f.sn.Prepare(f.ctx, key, parent, snapshots.WithLabels(labels))
	return f.follow(err, func() error { return f.model.Create(snapshots.KindActive, key, parent, labels) })
}

func (f *Fixture) view(key, parent string, labels map[string]string) error {
	f.t.Helper()
	_, err := f.sn.View(f.ctx, key, parent, snapshots.WithLabels(labels))
	return f.follow(err, func() error { return f.model.Create(snapshots.KindView, key, parent, labels) })
}

func (f *Fixture) commit(name, key string, labels map[string]string) error {
	f.t.Helper()
	err := f.sn.Commit(f.ctx, name, key, snapshots.WithLabels(labels))
	return f.follow(err, func() error { return f.model.Commit(name, key, labels) })
}

func (f *Fixture) update(name string, labels map[string]string) error {
	f.t.Helper()
	_, err := f.sn.Update(f.ctx, snapshots.Info{Name: name, Labels: labels})
	return f.follow(err, func() error { return f.model.Update(name, labels) })
}

func (f *Fixture) remove(name string) error {
	f.t.Helper()
	return f.follow(f.sn.Remove(f.ctx, name), func() error { return f.model.Remove(name) })
}

func (f *Fixture) cleanup() error {
	f.t.Helper()
	return f.follow(f.sn.Cleanup(f.ctx), func() error { f.model.Cleanup(); return nil })
}

// waitUntilWritten waits until the pool has no records of these names and the daemon makes no
// call to ZFS.
func (f *Fixture) waitUntilWritten(names ...string) error {
	tick := time.NewTicker(150 * time.Millisecond) // a listing takes a while itself
	defer tick.Stop()
	deadline := time.After(harness.Patience)
	for {
		select {
		case <-f.d.Exited:
			return errors.New("the daemon has ended")
		case <-deadline:
			return fmt.Errorf("the removal of %q is not written", names)
		case <-tick.C:
		}
		if f.haveRecord(names) {
			continue
		}
		points := f.points(f.t) // last: a call reports its end after its effect
		if len(points) == 0 || strings.HasPrefix(points[len(points)-1].what, "after ") {
			return nil
		}
	}
}

// haveRecord reports whether the pool has a record of one of the names.
func (f *Fixture) haveRecord(names []string) bool {
	return slices.ContainsFunc(f.base.Inspect(f.t), func(e inspect.Entry) bool {
		return slices.ContainsFunc(e.Records, func(i snapshots.Info) bool { return slices.Contains(names, i.Name) })
	})
}

// removeWritten removes snapshots and waits until that is in the pool.
func (f *Fixture) removeWritten(names ...string) {
	f.t.Helper()
	for _, name := range names {
		f.must(f.remove(name))
	}
	f.must(f.waitUntilWritten(names...))
}

// active creates an active snapshot and writes a word into it.
func (f *Fixture) active(key, parent, word string, labels map[string]string) {
	f.t.Helper()
	f.must(f.prepare(key, parent, labels))
	f.write(key, word)
}

// committed creates a committed snapshot with a word in it.
func (f *Fixture) committed(name, parent, word string, labels map[string]string) {
	f.t.Helper()
	key := "default/1/build " + word
	f.active(key, parent, word, nil)
	f.must(f.commit(name, key, labels))
}

// pulled creates a layer of an image, as containerd does.
func (f *Fixture) pulled(name, parent, chain, word string) {
	f.t.Helper()
	key := harness.Extraction("default", 1, chain)
	f.active(key, parent, word, ref(chain))
	f.must(f.commit(name, key, ref(chain)))
}

// mount mounts a snapshot until the end of the crash and of what follows it.
func (f *Fixture) mount(key string) {
	f.t.Helper()
	mounts, err := f.sn.Mounts(f.ctx, key)
	f.must(err)
	f.mounted, err = os.MkdirTemp("", "zfstpl-held-")
	f.must(err)
	f.must(mount.All(mounts, f.mounted))
}

func (f *Fixture) unmount() {
	f.t.Helper()
	if f.mounted == "" {
		return
	}
	assert.NoError(f.t, mount.UnmountAll(f.mounted, 0))
	assert.NoError(f.t, os.Remove(f.mounted))
	f.mounted = ""
}

// dataset returns the runtime of an active snapshot.
func (f *Fixture) dataset(key string) string {
	f.t.Helper()
	mounts, err := f.sn.Mounts(f.ctx, key)
	f.must(err)
	return f.base.Source(f.t, mounts)
}

// properties returns the user properties of zfstpl on a dataset.
func (f *Fixture) properties(dataset string) map[string]string {
	f.t.Helper()
	for _, d := range f.base.List(f.t) {
		if d.Name == dataset {
			return maps.Clone(d.Props)
		}
	}
	require.Fail(f.t, "no dataset", dataset)
	return nil
}
