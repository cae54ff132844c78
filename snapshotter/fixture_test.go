package snapshotter

import (
	"bytes"
	"context"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter/internal/backoff"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/keylock"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/holders"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/inspect/invariants"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/internal/recordlog"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
)

// fixture is a test with a snapshotter on a base in a fake pool.
type fixture struct {
	testing.TB
	ctx  context.Context
	pool *zfsfake.Pool
	base layout.Base
	keep time.Duration
	root *os.Root      // the base's directory; nil if it has no log
	with func(*Config) // changes the configuration; may be nil
	sn   *Snapshotter
	log  *logbook
	n    int // the number that containerd puts into the next name
}

// logbook collects log output.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newFixture returns a fixture with a new base that keeps cached templates forever. The
// options change the fixture before its snapshotter starts.
func newFixture(t testing.TB, options ...func(*fixture)) *fixture {
	t.Helper()
	s := &fixture{TB: t, pool: zfsfake.New(t), keep: KeepForever, log: &logbook{}}
	logger := logrus.New()
	logger.SetOutput(s.log)
	logger.SetLevel(logrus.DebugLevel)
	s.ctx = log.WithLogger(t.Context(), logrus.NewEntry(logger))
	var err error
	s.base, err = layout.ParseBase("tank/z")
	require.NoError(t, err)
	for _, option := range options {
		option(s)
	}
	if os.Getenv("ZFSTPL_TEST_LOG") != "" {
		withLog(s)
	}
	_, err = setup.Init(s.ctx, s.pool, s.base, "/var/lib/zfstpl", nil)
	require.NoError(t, err)
	s.start()
	return s
}

func keepCached(d time.Duration) func(*fixture) { return func(s *fixture) { s.keep = d } }

// inSteps and torn set what one transaction of the pool is.
func inSteps(s *fixture) { s.pool = zfsfake.New(s, zfsfake.InSteps) }
func torn(s *fixture)    { s.pool = zfsfake.New(s, zfsfake.Torn) }

// withLog gives the base a directory, and with it a log. A crash leaves a part of what was
// written to it and not synchronised.
func withLog(s *fixture) {
	if s.root != nil {
		return
	}
	var err error
	s.root, err = os.OpenRoot(s.TempDir())
	require.NoError(s, err)
	s.Cleanup(func() { assert.NoError(s, s.root.Close()) })
}

func (s *fixture) start() {
	s.Helper()
	require.NoError(s, s.tryStart())
}

// settings returns an option that changes the configuration of the snapshotter.
func settings(with func(*Config)) func(*fixture) { return func(s *fixture) { s.with = with } }

func (s *fixture) config() Config {
	c := Config{Base: s.base, CacheKeep: s.keep, ReuseLayers: ReuseSkip, holders: func(...string) map[string][]holders.Mount { return nil },
		users: func(uint64) []holders.User { return nil }, Root: s.root,
		wrapLog: func(f recordlog.File) recordlog.File { return s.pool.File(f) }}
	if s.with != nil {
		s.with(&c)
	}
	return c
}

func (s *fixture) tryStart() error {
	s.pool.Keep(nil)
	sn, err := New(s.ctx, s.pool, s.config())
	if err == nil {
		s.pool.Keep(func(dataset string) bool { return shows(sn.index, dataset) })
		s.sn = sn
		s.Cleanup(func() { sn.Close() })
	}
	return err
}

// restart closes the snapshotter and starts it again.
func (s *fixture) restart() {
	s.Helper()
	require.NoError(s, s.sn.Close())
	s.start()
}

// crash simulates a crash of the machine and starts the snapshotter after the next boot.
func (s *fixture) crash() {
	s.Helper()
	s.pool = s.pool.AfterCrash()
	s.start()
}

func (s *fixture) prepare(key, parent string, opts ...snapshots.Opt) []mount.Mount {
	s.Helper()
	mounts, err := s.sn.Prepare(s.ctx, key, parent, opts...)
	require.NoError(s, err)
	return mounts
}

func (s *fixture) view(key, parent string, opts ...snapshots.Opt) []mount.Mount {
	s.Helper()
	mounts, err := s.sn.View(s.ctx, key, parent, opts...)
	require.NoError(s, err)
	return mounts
}

func (s *fixture) commit(name, key string, opts ...snapshots.Opt) {
	s.Helper()
	require.NoError(s, s.sn.Commit(s.ctx, name, key, opts...))
}

// layer creates a committed snapshot called name on parent, with added content.
func (s *fixture) layer(name, parent, content string) {
	s.Helper()
	s.prepare("making "+name, parent)
	s.write("making "+name, content)
	s.commit(name, "making "+name)
}

func (s *fixture) remove(keys ...string) {
	s.Helper()
	for _, key := range keys {
		require.NoError(s, s.sn.Remove(s.ctx, key))
	}
}

// flush writes the journal.
func (s *fixture) flush() {
	s.Helper()
	require.NoError(s, s.sn.journal.Flush(s.ctx))
}

func (s *fixture) cleanup() {
	s.Helper()
	require.NoError(s, s.sn.Cleanup(s.ctx))
}

// waitForRetries waits until the backoffs of all stuck datasets are over and they have been
// tried again. It works in a synctest bubble only.
func (s *fixture) waitForRetries() {
	time.Sleep(backoff.Max)
	synctest.Wait()
}

func (s *fixture) stat(key string) snapshots.Info {
	s.Helper()
	info, err := s.sn.Stat(s.ctx, key)
	require.NoError(s, err)
	return info
}

// dataset returns the dataset or snapshot that an active snapshot or a view mounts.
func (s *fixture) dataset(key string) string {
	s.Helper()
	r, err := s.sn.index.Get(key)
	require.NoError(s, err)
	if r.Info.Kind == snapshots.KindView {
		return r.Template.Snapshot()
	}
	return r.Dataset
}

// templateOf returns the dataset of the template of a snapshot.
func (s *fixture) templateOf(name string) string {
	s.Helper()
	r, err := s.sn.index.Get(name)
	require.NoError(s, err)
	return r.Template.Dataset()
}

// write appends content to an active snapshot.
func (s *fixture) write(key, content string) {
	s.Helper()
	s.pool.EditFS(s.dataset(key), func(fs *zfsfake.FS) { fs.Content += content })
}

// walk returns the snapshots that Walk shows and checks that they are sorted.
func (s *fixture) walk(filters ...string) []snapshots.Info {
	s.Helper()
	var infos []snapshots.Info
	require.NoError(s, s.sn.Walk(s.ctx, func(_ context.Context, info snapshots.Info) error {
		infos = append(infos, info)
		return nil
	}, filters...))
	require.True(s, slices.IsSortedFunc(infos, func(a, b snapshots.Info) int { return strings.Compare(a.Name, b.Name) }))
	return infos
}

func (s *fixture) names(filters ...string) []string {
	s.Helper()
	names := []string{}
	for _, info := range s.walk(filters...) {
		names = append(names, info.Name)
	}
	return names
}

// visible returns what a client can see of all snapshots, with Walk and in the file
// systems that it can mount.
func (s *fixture) visible() map[string]model.Snapshot {
	s.Helper()
	all := make(map[string]model.Snapshot)
	for _, info := range s.walk() {
		source := s.templateOf(info.Name) + "@" + layout.Extracted
		if info.Kind != snapshots.KindCommitted {
			source = s.dataset(info.Name)
		}
		var content string
		s.pool.Edit(func(state *zfsfake.State) {
			var ok bool
			content, ok = state.ContentOf(source)
			require.True(s, ok, "%s of %q is not in the pool", source, info.Name)
		})
		if len(info.Labels) == 0 {
			info.Labels = nil
		}
		all[info.Name] = model.Snapshot{Kind: info.Kind, Parent: info.Parent, Labels: info.Labels, Content: content}
	}
	return all
}

// inspect returns what the datasets of the base are.
func (s *fixture) inspect() ([]inspect.Entry, error) {
	s.Helper()
	entries, incomplete, err := inspect.List(s.ctx, s.pool, s.base, s.root, nil)
	require.NoError(s, incomplete)
	return entries, err
}

// datasets returns the datasets of the pool below storage and runtime, without ready runtimes.
func (s *fixture) datasets() []string {
	ready := make(map[string]bool)
	s.sn.index.EachReady(func(dataset string) { ready[dataset] = true })
	names := []string{}
	s.pool.Edit(func(state *zfsfake.State) {
		for _, name := range slices.Sorted(maps.Keys(state.FS)) {
			if strings.Count(name, "/") > 2 && !ready[name] {
				names = append(names, name)
			}
		}
	})
	return names
}

// templates returns the datasets below storage.
func (s *fixture) templates() []string {
	return slices.DeleteFunc(s.datasets(), func(name string) bool { return !strings.HasPrefix(name, s.base.Storage()) })
}

// dump returns the content of the index as sorted lines.
func dump(sn *Snapshotter) []string { return sn.index.Dump() }

// requireRecoverable flushes the journal and requires that a new snapshotter has the same
// index.
func (s *fixture) requireRecoverable() {
	s.Helper()
	require.NoError(s, s.sn.journal.Flush(s.ctx))
	fresh, err := New(s.ctx, s.pool, s.config())
	require.NoError(s, err)
	require.Zero(s, fresh.journal.Len(), "nothing to repair")
	require.Equal(s, dump(fresh), dump(s.sn), "the index of a new snapshotter is equal")
	require.NoError(s, fresh.Close())
}

// requireInvariants gives up the ready runtimes, which another process takes for garbage, runs
// a cleanup and checks all invariants.
func (s *fixture) requireInvariants() {
	s.Helper()
	s.sn.index.GiveUpReady(func(index.Ready) bool { return true }, time.Now())
	s.cleanup()
	s.requireRecoverable()
	list, err := s.pool.List(s.ctx, s.base.String())
	require.NoError(s, err)
	require.NoError(s, invariants.Check(s.base, list))
	require.NoError(s, s.sn.index.Check())
	s.pool.Edit(func(state *zfsfake.State) {
		for name, fs := range state.FS {
			records := 0
			for prop := range fs.Props {
				if rest, ok := strings.CutPrefix(prop, record.Property); ok && !strings.Contains(rest, ":") {
					records++
				}
			}
			_, extracted := fs.Snaps[layout.Extracted]
			switch {
			case strings.HasPrefix(name, s.base.Runtime()+"/"):
				assert.Equal(s, 1, records, "%s has exactly one active record", name)
				assert.False(s, extracted, "%s has no residue of a commit", name)
			case strings.HasPrefix(name, s.base.Storage()+"/"):
				assert.True(s, extracted, "%s has its snapshot", name)
				assert.Equal(s, fs.Snaps[layout.Extracted].Content, fs.Content, "%s is unchanged", name)
			}
		}
	})
	for name, i := range s.visible() {
		if i.Parent != "" {
			assert.Equal(s, snapshots.KindCommitted, s.stat(i.Parent).Kind, "the parent of %q", name)
		}
	}
}

// heldLocks returns the locks that are held or waited for.
func heldLocks(sn *Snapshotter) []string {
	var names []string
	for _, k := range []*keylock.Locks{&sn.locks.keys, &sn.locks.datasets} {
		names = append(names, k.Names()...)
	}
	return names
}

// shows reports whether the index has a record on a dataset.
func shows(x *index.Index, dataset string) bool {
	return slices.ContainsFunc(x.Dump(), func(line string) bool {
		return strings.HasPrefix(line, "record ") && strings.Contains(line, " in "+dataset+" of ")
	})
}
