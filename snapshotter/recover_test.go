package snapshotter

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter/inspect/invariants"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// testID returns the record ID with the number n.
func testID(n string) string { return strings.Repeat("0", 16-len(n)) + n }

func set(prop, value string) func(fs *zfsfake.FS) {
	return func(fs *zfsfake.FS) { fs.Props[prop] = value }
}

// With any value in the properties of a template, the snapshotter starts, logs what it
// cannot read and shows the rest. It does not destroy a template with an unreadable record.
func TestUnreadableRecordsKeepTheTemplate(t *testing.T) {
	t.Parallel()
	prop := record.Property + testID("1")
	good := `{"seq":900,"kind":"view","name":"odd","created":"2025-01-01T00:00:00Z","updated":"2025-01-01T00:00:00Z"}`
	for what, c := range map[string]struct {
		edit func(fs *zfsfake.FS)
		log  string
		held bool // the template is never destroyed
		also string
	}{
		"no count":              {set(prop, good), "number of parts", true, ""},
		"no text":               {set(prop, ""), "number of parts", true, ""},
		"count only":            {set(prop, "1"), "number of parts", true, ""},
		"count of none":         {set(prop, "0 "+good), "number of parts", true, ""},
		"count of too many":     {set(prop, "31 "+good), "number of parts", true, ""},
		"negative count":        {set(prop, "-1 "+good), "number of parts", true, ""},
		"a part is missing":     {set(prop, "2 "+good), "part 2 of 2 is missing", true, ""},
		"no JSON":               {set(prop, "1 what?"), "invalid character", true, ""},
		"cut JSON":              {set(prop, "1 "+good[:40]), "unexpected end", true, ""},
		"JSON of another shape": {set(prop, `1 ["view"]`), "cannot unmarshal", true, ""},
		"hostile JSON":          {set(prop, `1 {"seq":-1,"kind":"view","name":"x"}`), "cannot unmarshal", true, ""},
		"no kind":               {set(prop, `1 {"name":"x"}`), "kind", true, ""},
		"odd kind":              {set(prop, `1 {"kind":"hole","name":"x"}`), "kind", true, ""},
		"no name":               {set(prop, `1 {"kind":"view"}`), "name", true, ""},
		"odd ID":                {set(record.Property+"XYZ", "1 "+good), "not the ID of a record", true, ""},
		"no ID":                 {set(record.Property, "1 "+good), "not the ID of a record", true, ""},
		"active on a template":  {set(prop, strings.Replace("1 "+good, "view", "active", 1)), "active snapshot", true, ""},
		"unknown fields":        {set(prop, strings.Replace("1 "+good, "{", `{"color":"blue",`, 1)), "", false, "odd"},
		"part without a first":  {set(record.Property+testID("2")+":1", "x"), "", false, ""},
		"last used never":       {set(record.LastUsedProperty, "never"), "", false, ""},
		"a foreign property":    {set("foreign:record", "x"), "", false, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			a, _ := s.pull("default", "", chain("a"), "a;")
			s.prepare("web", a)
			s.cleanup()
			template := s.templateOf(a)
			require.NoError(t, s.sn.Close())
			s.pool.EditFS(template, c.edit)
			s.keep = 0
			s.start()
			if c.log != "" {
				assert.Contains(t, s.log.String(), c.log)
				assert.Contains(t, s.log.String(), template)
			}
			want := []string{a, "web"}
			if c.also != "" {
				want = []string{a, c.also, "web"}
			}
			assert.Equal(t, want, s.names(), "the readable records are shown")

			s.remove("web", a)
			if c.also != "" {
				s.remove(c.also)
			}
			s.cleanup()
			s.restart()
			s.cleanup()
			if c.held {
				assert.Contains(t, s.datasets(), template, "the unreadable record may name it")
			} else {
				assert.Len(t, s.datasets(), 1)
			}
		})
	}
}

// A template in use whose @extracted was destroyed is kept. Its records are hidden until a
// start finds the snapshot again.
func TestTemplateWithoutSnapshotIsKeptAndHidden(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	a, _ := s.pull("default", "", chain("a"), "a;")
	template := s.templateOf(a)
	require.NoError(t, s.sn.Close())
	var snapshot zfsfake.Snap
	s.pool.EditFS(template, func(fs *zfsfake.FS) { snapshot = fs.Snaps[layout.Extracted]; delete(fs.Snaps, layout.Extracted) })
	s.start()
	assert.Contains(t, s.log.String(), "'zfs snapshot "+template+"@extracted' and restart the daemon")
	assert.Empty(t, s.names())
	s.remove(a)
	s.cleanup()
	assert.True(t, s.has(template))
	b, _ := s.pull("default", "", chain("a"), "a;")
	assert.NotEqual(t, template, s.templateOf(b), "a pull makes another template")

	require.NoError(t, s.sn.Close())
	s.pool.EditFS(template, func(fs *zfsfake.FS) { fs.Snaps[layout.Extracted] = snapshot })
	s.start()
	assert.Equal(t, template, s.templateOf(a))
	s.requireInvariants()
}

// If recovery cannot roll back a commit, the snapshotter starts nevertheless and the active
// snapshot remains usable.
func TestStartSucceedsWhenRollbackOfACommitFails(t *testing.T) {
	t.Parallel()
	s := newFixture(t, inSteps)
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	runtime := s.dataset("web")
	require.NoError(t, s.sn.Close())
	partial := s.base.Opaque(layout.NewID()).Dataset()
	require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot(runtime+"@extracted"), zfs.Clone(runtime+"@extracted", partial), zfs.Promote(partial, runtime)))
	end := s.pool.FailAt(zfsfake.Before(zfsfake.Promote).Of(runtime), zfsfake.Return(zfsfake.Error("promote", partial, zfs.ErrQuota)))
	s.start()
	assert.Contains(t, s.log.String(), "failed to roll back interrupted commit")
	assert.Equal(t, []string{"base", "web"}, s.names())
	assert.Equal(t, runtime, s.dataset("web"))
	s.cleanup()
	assert.True(t, s.has(partial), "web is a clone of it")
	end()
	s.restart()
	s.cleanup()
	assert.False(t, s.has(partial))
	s.requireInvariants()
}

func TestRuntimesWithAProblemAreKept(t *testing.T) {
	t.Parallel()
	good := `1 {"seq":900,"kind":"active","name":"odd"}`
	for what, edit := range map[string]func(fs *zfsfake.FS){
		"unreadable":  set(record.Property+testID("1"), "what"),
		"two records": set(record.Property+testID("1"), good),
		"only a committed one": func(fs *zfsfake.FS) {
			clear(fs.Props)
			fs.Props[record.Property+testID("1")] = strings.Replace(good, "active", "committed", 1)
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.layer("base", "", "b;")
			s.prepare("web", "base")
			s.cleanup()
			runtime := s.dataset("web")
			require.NoError(t, s.sn.Close())
			s.pool.EditFS(runtime, edit)
			s.start()
			assert.Contains(t, s.log.String(), runtime)
			assert.Equal(t, []string{"base"}, s.names())
			s.cleanup()
			assert.Contains(t, s.datasets(), runtime)
			s.remove("base") // its template has a clone and is kept
			s.cleanup()
			s.cleanup()
			assert.Contains(t, s.datasets(), runtime)
			assert.Equal(t, 1, strings.Count(s.log.String(), "failed to destroy dataset"), "the log has the reason why the template is kept")
			assert.Contains(t, s.log.String(), "foreign clones")
		})
	}
}

func TestForeignDatasetsAreKept(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	for _, name := range []string{
		"tank/z/mine", "tank/z/storage/backup", "tank/z/storage/empty/child", "tank/z/runtime/notes", "tank/z/storage/opaque-x",
	} {
		require.NoError(t, s.pool.Create(s.ctx, name, nil))
	}
	before := s.datasets()
	s.restart()
	s.cleanup()
	assert.Equal(t, before, s.datasets())
	assert.Contains(t, s.log.String(), "dataset=tank/z/mine ")
}

// A dataset with the name of a runtime that is not a clone of a template is foreign.
func TestRuntimeThatIsNotACloneIsKept(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	require.NoError(t, s.pool.Create(s.ctx, "tank/mine", nil))
	require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot("tank/mine@x")))
	require.NoError(t, s.pool.Create(s.ctx, "tank/z/runtime/data-0123456789abcdef", nil))
	require.NoError(t, s.pool.Apply(s.ctx, zfs.Clone("tank/mine@x", "tank/z/runtime/data-fedcba9876543210")))
	before := s.datasets()
	s.restart()
	s.cleanup()
	assert.Equal(t, before, s.datasets())
}

// A commit leaves its runtime without a record. If the runtime is busy, a later start still
// finds it as garbage.
func TestBusyRuntimeWithoutRecordIsGarbageAfterRestart(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	runtime := s.dataset("web")
	s.pool.Edit(func(state *zfsfake.State) { state.Mounted[runtime] = true })
	s.commit("saved", "web")
	s.restart()
	s.cleanup()
	list, err := s.pool.List(s.ctx, s.base.String())
	require.NoError(t, err)
	require.NoError(t, invariants.Check(s.base, list))
	assert.Contains(t, s.datasets(), runtime)
	s.pool.Edit(func(state *zfsfake.State) { delete(state.Mounted, runtime) })
	s.restart()
	s.requireInvariants()
	assert.NotContains(t, s.datasets(), runtime)
}

// An active snapshot whose origin is foreign, for example after a promote or a receive by
// an administrator, works.
func TestActiveSnapshotWithForeignOriginWorks(t *testing.T) {
	t.Parallel()
	s, _ := newHeldFixture(t, func(c *Config) { c.CacheKeep = 0 })
	s.prepare("web", "")
	s.write("web", "w;")
	require.NoError(t, s.pool.Create(s.ctx, "tank/mine", nil))
	require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot("tank/mine@x")))
	s.pool.EditFS(s.dataset("web"), func(fs *zfsfake.FS) { fs.Origin = "tank/mine@x" })
	s.restart()
	usage, err := s.sn.Usage(s.ctx, "web")
	require.NoError(t, err)
	assert.Equal(t, snapshots.Usage{Size: 2, Inodes: 8}, usage)
	s.commit("saved", "web")
	s.prepare("next", "saved")
	assert.Equal(t, "w;", s.visible()["next"].Content)
	s.restart()
	assert.Equal(t, "w;", s.visible()["next"].Content)
	s.remove("next", "saved")
	s.cleanup()
}

func TestNewRefusesInvalidBases(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		edit func(s *zfsfake.State)
		says string
	}{
		"no base":            {func(s *zfsfake.State) { delete(s.FS, "tank/z") }, "zfstpl init tank/z"},
		"not ours":           {func(s *zfsfake.State) { delete(s.FS["tank/z"].Props, layout.VersionProperty) }, "not a zfstpl base"},
		"newer":              {func(s *zfsfake.State) { s.FS["tank/z"].Props[layout.VersionProperty] = "3" }, "newer zfstpl"},
		"no empty template":  {func(s *zfsfake.State) { delete(s.FS, "tank/z/storage/empty") }, "zfstpl init tank/z"},
		"no empty snapshot":  {func(s *zfsfake.State) { clear(s.FS["tank/z/storage/empty"].Snaps) }, "zfstpl init tank/z"},
		"no storage, at all": {func(s *zfsfake.State) { delete(s.FS, "tank/z/storage/empty"); delete(s.FS, "tank/z/storage") }, "init"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			require.NoError(t, s.sn.Close())
			s.pool.Edit(c.edit)
			before := s.datasets()
			require.ErrorContains(t, s.tryStart(), c.says)
			assert.Equal(t, before, s.datasets(), "nothing is changed")
		})
	}
	s := newFixture(t)
	s.pool.FailAt(zfsfake.Before(zfsfake.Call), zfsfake.Refuse(zfs.ErrSuspended))
	assert.ErrorIs(t, s.tryStart(), zfs.ErrSuspended)
}

// Snapshots whose parent's record is unreadable are shown without a parent, with their
// content, and containerd can remove them.
func TestSnapshotWithUnreadableParentIsShownWithoutParent(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.layer("app", "base", "a;")
	s.prepare("web", "app")
	s.view("look", "base")
	template := s.templateOf("base")
	s.pool.EditFS(template, func(fs *zfsfake.FS) {
		for prop, value := range fs.Props {
			if strings.Contains(value, `"base"`) && strings.Contains(value, "committed") {
				fs.Props[prop] = "what"
			}
		}
	})
	s.restart()
	assert.Equal(t, map[string]model.Snapshot{
		"app":  {Kind: snapshots.KindCommitted, Content: "b;a;"},
		"web":  {Kind: snapshots.KindActive, Parent: "app", Content: "b;a;"},
		"look": {Kind: snapshots.KindView, Content: "b;"},
	}, s.visible())
	s.remove("look", "web", "app")
	s.cleanup()
	assert.Contains(t, s.datasets(), template)
}

// A start does not use the sequence number of an existing record again.
func TestSequenceContinuesAfterRestart(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	for range 5 {
		s.prepare("web", "")
		s.remove("web")
	}
	s.prepare("web", "")
	web, err := s.sn.index.Get("web")
	require.NoError(t, err)
	s.restart()
	s.prepare("db", "")
	db, err := s.sn.index.Get("db")
	require.NoError(t, err)
	assert.Greater(t, db.Seq, web.Seq)
}

// When recovery removes the last record of a template because a newer record has its name,
// the cached time of the template begins then, not at its creation.
func TestTemplateOfSupersededRecordIsCachedFromNow(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(time.Hour))
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.cleanup()
	s.pool.EditFS(s.templateOf(a), func(fs *zfsfake.FS) { fs.Born = time.Now().Add(-24 * time.Hour) })
	s.remove(a)
	s.prepare(a, "")
	s.crash()
	s.cleanup()
	assert.Contains(t, s.datasets(), "tank/z/storage/"+chain("a"))
}

// An interrupted write or removal of a long record leaves parts without a first part. The
// next start removes them and keeps the datasets.
func TestPartialRecordsAreRemoved(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(time.Hour))
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.prepare("web", a)
	template, runtime := s.templateOf(a), s.dataset("web")
	require.NoError(t, s.sn.Close())
	remains := record.Property + testID("7") + ":1"
	for _, dataset := range []string{template, runtime} {
		s.pool.EditFS(dataset, set(remains, "the middle of a label"))
		s.pool.EditFS(dataset, set(record.Property+"foreign:1", "foreign"))
	}
	s.start()
	require.NoError(t, s.sn.Close())
	for _, dataset := range []string{template, runtime} {
		s.pool.EditFS(dataset, func(fs *zfsfake.FS) {
			assert.NotContains(t, fs.Props, remains)
			assert.Contains(t, fs.Props, record.Property+"foreign:1")
		})
	}
	s.start()
	assert.Equal(t, []string{a, "web"}, s.names())
}

// A start destroys the temporary snapshots of killed comparisons on runtimes and templates.
// Temporary snapshots are destroyed with their dataset and do not count as foreign.
func TestTemporarySnapshotsAreDestroyed(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.prepare("web", a)
	left := zfs.TemporaryPrefix + "LEFT"
	for _, dataset := range []string{s.templateOf(a), s.dataset("web")} {
		s.pool.EditFS(dataset, func(fs *zfsfake.FS) { fs.Snaps[left] = zfsfake.Snap{} })
	}
	s.restart()
	for _, dataset := range []string{s.templateOf(a), s.dataset("web")} {
		s.pool.EditFS(dataset, func(fs *zfsfake.FS) { assert.NotContains(t, fs.Snaps, left) })
	}
	s.pool.EditFS(s.dataset("web"), func(fs *zfsfake.FS) { fs.Snaps[left] = zfsfake.Snap{} })
	s.remove("web", a)
	s.cleanup()
	assert.NotContains(t, s.log.String(), "foreign")
	assert.NotContains(t, strings.Join(s.datasets(), " "), "/runtime/")
}

// A start finds two records of an active snapshot. If the snapshot is committed then, a
// crash does not restore the active one.
func TestCommitAfterInterruptedUpdateIsFinal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, torn)
		s.prepare("web", "")
		s.write("web", "w;")
		s.pool.FailAt(zfsfake.Before(zfsfake.Inherit), zfsfake.Crash()) // the new record is written and the old one not removed
		_, err := s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "b"}})
		require.ErrorIs(t, err, zfsfake.ErrCrashed)
		s.crash()
		s.commit("saved", "web")
		s.crash()
		assert.Equal(t, []string{"saved"}, s.names())
	})
}
