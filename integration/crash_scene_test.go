package integration

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
)

// crashSnap is what the daemon says of a snapshot, without times.
type crashSnap struct {
	Kind   snapshots.Kind
	Parent string
	Labels map[string]string
	Mounts string // with the random part of the names left out
}

// crashState is what the daemon says of everything, by name.
type crashState map[string]crashSnap

// crashScene is one crash: what there is before it, made through the daemon,
// and what the test knows of it beside.
type crashScene struct {
	*crashRig
	t       testing.TB
	ctx     context.Context
	words   map[string][]string // what was written into each snapshot, by name
	before  crashState
	sources map[string]string // what was mounted for each snapshot, before
	held    string            // where a snapshot is mounted throughout
	failed  error             // of the step during which the daemon died
}

func newCrashScene(t testing.TB, r *crashRig) *crashScene {
	t.Helper()
	r.up(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*harness.Patience)
	t.Cleanup(cancel)
	return &crashScene{crashRig: r, t: t, ctx: ctx, words: make(map[string][]string)}
}

// stage sets the scene of a case. What the case's fixture makes is made once.
func (s *crashScene) stage(c crashCase) {
	s.t.Helper()
	if !s.staged {
		if c.fixture != nil {
			c.fixture(s)
		}
		s.must(s.sn.Cleanup(s.ctx))
		s.kept, _ = s.read()
		s.crashRig.words, s.names, s.staged = s.words, s.base.Names(s.t), true
	}
	s.words = maps.Clone(s.crashRig.words)
	if c.scene != nil {
		c.scene(s)
	}
	if s.before == nil {
		s.note()
	}
}

// clear removes everything but the fixture and wants nothing to be left of it.
func (s *crashScene) clear(t *testing.T) {
	t.Helper()
	busy := s.held != "" // what could not be destroyed is tried again after a pause
	s.release()
	s.removeBut(s.kept)
	if busy {
		require.Eventually(t, func() bool { return slices.Equal(s.names, s.base.Names(t)) }, harness.Patience, 100*time.Millisecond)
	}
	require.Equal(t, s.names, s.base.Names(t))
}

// strike removes the fixture.
func (s *crashScene) strike(t *testing.T) {
	t.Helper()
	s.removeBut(nil)
	require.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, s.base.Names(t))
	s.staged = false
}

// removeBut removes leaf after leaf, as containerd's garbage collection does.
func (s *crashScene) removeBut(keep crashState) {
	s.t.Helper()
	for more := true; more; {
		more = false
		parents := make(map[string]bool)
		all := harness.Everything(s.t, s.sn)
		for _, info := range all {
			parents[info.Parent] = true
		}
		for name := range all {
			if _, stays := keep[name]; stays {
				continue
			}
			more = true
			if !parents[name] {
				s.must(s.sn.Remove(s.ctx, name))
			}
		}
	}
	s.must(s.sn.Cleanup(s.ctx))
}

// The following are what cases are made of. Those that may be the operation
// under test return their error.

func (s *crashScene) prepare(key, parent string, opts ...snapshots.Opt) error {
	s.words[key] = slices.Clone(s.words[parent])
	_, err := s.sn.Prepare(s.ctx, key, parent, opts...)
	return err
}

func (s *crashScene) view(key, parent string, opts ...snapshots.Opt) error {
	s.words[key] = s.words[parent]
	_, err := s.sn.View(s.ctx, key, parent, opts...)
	return err
}

func (s *crashScene) commit(name, key string, opts ...snapshots.Opt) error {
	s.words[name] = s.words[key]
	return s.sn.Commit(s.ctx, name, key, opts...)
}

func (s *crashScene) update(name string, labels map[string]string) error {
	_, err := s.sn.Update(s.ctx, snapshots.Info{Name: name, Labels: labels})
	return err
}

// written waits until the pool has no records of these names any more, and the
// daemon no call under way.
func (s *crashScene) written(names ...string) error {
	tick := time.NewTicker(150 * time.Millisecond) // a listing takes a while itself
	defer tick.Stop()
	deadline := time.After(harness.Patience)
	for {
		select {
		case <-s.d.Exited:
			return errors.New("the daemon is dead")
		case <-deadline:
			return fmt.Errorf("the removal of %q is not written", names)
		case <-tick.C:
		}
		if s.recorded(names) {
			continue
		}
		points := s.points(s.t) // last: a call reports its end after its effect
		if len(points) == 0 || strings.HasPrefix(points[len(points)-1].what, "after ") {
			return nil
		}
	}
}

func (s *crashScene) recorded(names []string) bool {
	entries, err := inspect.List(s.ctx, s.base.Client, s.base.Base)
	require.NoError(s.t, err)
	return slices.ContainsFunc(entries, func(e inspect.Entry) bool {
		return slices.ContainsFunc(e.Records, func(i snapshots.Info) bool { return slices.Contains(names, i.Name) })
	})
}

// must is for what is there before the crash.
func (s *crashScene) must(errs ...error) {
	s.t.Helper()
	require.NoError(s.t, errors.Join(errs...))
}

// size of a file: some blocks, so that it is no part of its dnode.
const crashFileSize = 20_000

// write makes a file with a word as its name and content.
func (s *crashScene) write(key, word string) {
	s.t.Helper()
	mounts, err := s.sn.Mounts(s.ctx, key)
	s.must(err)
	harness.Mounted(s.t, mounts, func(root string) { s.must(writeWord(root, word)) })
	s.words[key] = append(slices.Clone(s.words[key]), word)
}

func writeWord(root, word string) error {
	return os.WriteFile(filepath.Join(root, word), []byte(strings.Repeat(word, crashFileSize/len(word))), 0o640)
}

// active makes an active snapshot with a word in it.
func (s *crashScene) active(key, parent, word string, opts ...snapshots.Opt) {
	s.t.Helper()
	s.must(s.prepare(key, parent, opts...))
	s.write(key, word)
}

// committed makes a committed snapshot with a word in it.
func (s *crashScene) committed(name, parent, word string, opts ...snapshots.Opt) {
	s.t.Helper()
	key := "default/1/build " + word
	s.active(key, parent, word)
	s.must(s.commit(name, key, opts...))
}

// pulled makes a layer of an image, as containerd does.
func (s *crashScene) pulled(name, parent, chain, word string) {
	s.t.Helper()
	key := harness.Extraction("default", 1, chain)
	s.active(key, parent, word, harness.WithRef(chain))
	s.must(s.commit(name, key, harness.WithRef(chain)))
}

// hold mounts a snapshot until the end of the crash and what follows it.
func (s *crashScene) hold(key string) {
	s.t.Helper()
	mounts, err := s.sn.Mounts(s.ctx, key)
	s.must(err)
	s.held, err = os.MkdirTemp("", "zfstpl-held-")
	s.must(err)
	s.must(mount.All(mounts, s.held))
}

func (s *crashScene) release() {
	s.t.Helper()
	if s.held == "" {
		return
	}
	assert.NoError(s.t, mount.UnmountAll(s.held, 0))
	assert.NoError(s.t, os.Remove(s.held))
	s.held = ""
}

// dataset is the runtime of an active snapshot.
func (s *crashScene) dataset(key string) string {
	s.t.Helper()
	mounts, err := s.sn.Mounts(s.ctx, key)
	s.must(err)
	return s.base.Source(s.t, mounts)
}

// note keeps what the daemon says now as the state before the crash.
func (s *crashScene) note() {
	s.t.Helper()
	s.before, s.sources = s.read()
}

var randomPart = regexp.MustCompile(`-[0-9a-f]{16}\b`)

// read returns what the daemon says, by every call that returns from memory,
// and the exact sources of what it would have mounted.
func (s *crashScene) read() (crashState, map[string]string) {
	s.t.Helper()
	state, sources := make(crashState), make(map[string]string)
	for name, info := range harness.Everything(s.t, s.sn) {
		stat, err := s.sn.Stat(s.ctx, name)
		s.must(err)
		require.Equal(s.t, stat, info, "Stat and Walk say the same")
		snap := crashSnap{Kind: info.Kind, Parent: info.Parent, Labels: brief(info.Labels)}
		if info.Kind != snapshots.KindCommitted {
			mounts, err := s.sn.Mounts(s.ctx, name)
			s.must(err)
			source := s.base.Source(s.t, mounts)
			sources[name] = source
			snap.Mounts = fmt.Sprint(mounts[0].Type, " ", strings.TrimPrefix(source, s.base.String()), mounts[0].Options)
			snap.Mounts = randomPart.ReplaceAllString(snap.Mounts, "-ID")
		}
		state[name] = snap
	}
	return state, sources
}

// brief shortens long labels for the output of a failed test.
func brief(labels map[string]string) map[string]string {
	short := make(map[string]string, len(labels))
	for k, v := range labels {
		if len(v) > 100 {
			v = fmt.Sprintf("%d bytes, sum %x", len(v), sha256.Sum256([]byte(v)))
		}
		short[k] = v
	}
	return short
}

// requireFiles looks into every snapshot of a state: at a committed one through
// a view. What was written is there, and nothing else.
func (s *crashScene) requireFiles(state crashState) {
	s.t.Helper()
	for name, snap := range state {
		var mounts []mount.Mount
		var err error
		if snap.Kind == snapshots.KindCommitted {
			mounts, err = s.sn.View(s.ctx, "look", name)
		} else {
			mounts, err = s.sn.Mounts(s.ctx, name)
		}
		s.must(err)
		harness.Mounted(s.t, mounts, func(root string) { requireWords(s.t, root, s.words[name], name) })
		if snap.Kind == snapshots.KindCommitted {
			s.must(s.sn.Remove(s.ctx, "look"))
		}
	}
}

func requireWords(t testing.TB, root string, words []string, name string) {
	t.Helper()
	files, err := os.ReadDir(root)
	require.NoError(t, err)
	require.Len(t, files, len(words), "files in %q: %v", name, files)
	for _, word := range words {
		content, err := os.ReadFile(filepath.Join(root, word))
		require.NoError(t, err, "in %q", name)
		require.True(t, string(content) == strings.Repeat(word, crashFileSize/len(word)), "the content of %s in %q", word, name)
	}
}

// tidy writes what is pending and wants the invariants to hold.
func (s *crashScene) tidy() {
	s.t.Helper()
	s.must(s.sn.Cleanup(s.ctx))
	s.base.Check(s.t)
	if s.t.Failed() {
		s.t.FailNow()
	}
}

func removeWord(root, word string) error { return os.Remove(filepath.Join(root, word)) }
