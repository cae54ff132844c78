package snapshotter

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// testID is a record's; the n-th one of a test.
func testID(n string) string { return strings.Repeat("0", 16-len(n)) + n }

func set(prop, value string) func(fs *fakeFS) {
	return func(fs *fakeFS) { fs.props[prop] = value }
}

// Whatever stands in the properties, the snapshotter starts, says what it
// cannot read, shows what it can, and destroys nothing it is in doubt about.
func TestStrangePropertiesDegrade(t *testing.T) {
	t.Parallel()
	record := propRecord + testID("1")
	good := `{"seq":900,"kind":"view","name":"strange","created":"2025-01-01T00:00:00Z","updated":"2025-01-01T00:00:00Z"}`
	for what, c := range map[string]struct {
		edit func(fs *fakeFS)
		log  string
		held bool // the dataset stays, for all we know
		also string
	}{
		"no count":              {set(record, good), "number of parts", true, ""},
		"no text":               {set(record, ""), "number of parts", true, ""},
		"count only":            {set(record, "1"), "number of parts", true, ""},
		"count of none":         {set(record, "0 "+good), "number of parts", true, ""},
		"count of too many":     {set(record, "31 "+good), "number of parts", true, ""},
		"negative count":        {set(record, "-1 "+good), "number of parts", true, ""},
		"a part is missing":     {set(record, "2 "+good), "part 2 of 2 is missing", true, ""},
		"no JSON":               {set(record, "1 what?"), "invalid character", true, ""},
		"cut JSON":              {set(record, "1 "+good[:40]), "unexpected end", true, ""},
		"JSON of another shape": {set(record, `1 ["view"]`), "cannot unmarshal", true, ""},
		"hostile JSON":          {set(record, `1 {"seq":-1,"kind":"view","name":"x"}`), "cannot unmarshal", true, ""},
		"no kind":               {set(record, `1 {"name":"x"}`), "kind", true, ""},
		"odd kind":              {set(record, `1 {"kind":"hole","name":"x"}`), "kind", true, ""},
		"no name":               {set(record, `1 {"kind":"view"}`), "name", true, ""},
		"odd ID":                {set(propRecord+"XYZ", "1 "+good), "not the ID of a record", true, ""},
		"no ID":                 {set(propRecord, "1 "+good), "not the ID of a record", true, ""},
		"active on a template":  {set(record, strings.Replace("1 "+good, "view", "active", 1)), "active snapshot", true, ""},
		"unknown fields":        {set(record, strings.Replace("1 "+good, "{", `{"color":"blue",`, 1)), "", false, "strange"},
		"part without a first":  {set(propRecord+testID("2")+":1", "x"), "", false, ""},
		"last used never":       {set(propLastUsed, "never"), "", false, ""},
		"a stranger's property": {set("stranger:record", "x"), "", false, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			a, _ := s.pull("default", "", chain("a"), "a;")
			s.prepare("web", a)
			s.cleanup()
			template := s.templateOf(a)
			require.NoError(t, s.sn.Close())
			s.pool.editFS(template, c.edit)
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
			assert.Equal(t, want, s.names(), "what can be read is there")

			s.remove("web", a)
			if c.also != "" {
				s.remove(c.also)
			}
			s.cleanup()
			s.restart()
			s.cleanup()
			if c.held {
				assert.Contains(t, s.datasets(), template, "somebody may need it")
			} else {
				assert.Len(t, s.datasets(), 1)
			}
		})
	}
}

// Somebody took @extracted away from a template in use. Its files are all there, and
// stay; what names it is not shown until they have their snapshot back.
func TestATemplateThatLostItsSnapshot(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(0))
	a, _ := s.pull("default", "", chain("a"), "a;")
	template := s.templateOf(a)
	require.NoError(t, s.sn.Close())
	var taken fakeSnap
	s.pool.editFS(template, func(fs *fakeFS) { taken = fs.snaps[layout.Extracted]; delete(fs.snaps, layout.Extracted) })
	s.start()
	assert.Contains(t, s.log.String(), "'zfs snapshot "+template+"@extracted' and restart the daemon")
	assert.Empty(t, s.names())
	s.remove(a)
	s.cleanup()
	assert.True(t, s.has(template))
	b, _ := s.pull("default", "", chain("a"), "a;")
	assert.NotEqual(t, template, s.templateOf(b), "whoever pulls it meanwhile has his own")

	require.NoError(t, s.sn.Close())
	s.pool.editFS(template, func(fs *fakeFS) { fs.snaps[layout.Extracted] = taken })
	s.start()
	assert.Equal(t, template, s.templateOf(a))
	s.requireInvariants()
}

// A commit that cannot be taken back, for whatever reason, does not keep the others
// from being served: its snapshot is there and active.
func TestACommitThatCannotBeTakenBack(t *testing.T) {
	t.Parallel()
	s := newFixture(t, inSteps)
	s.layer("base", "", "b;")
	s.prepare("web", "base")
	runtime := s.dataset("web")
	require.NoError(t, s.sn.Close())
	half := s.base.Opaque(layout.NewID()).Dataset()
	require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot(runtime+"@extracted"), zfs.Clone(runtime+"@extracted", half), zfs.Promote(half, runtime)))
	s.pool.interrupt(func(call string) error {
		if call == "apply" { // nothing else is applied at this start
			return fakeError("promote", half, zfs.ErrQuota)
		}
		return nil
	})
	s.start()
	assert.Contains(t, s.log.String(), "failed to roll back interrupted commit")
	assert.Equal(t, []string{"base", "web"}, s.names())
	assert.Equal(t, runtime, s.dataset("web"))
	s.cleanup()
	assert.True(t, s.has(half), "web is a clone of it")
	s.pool.interrupt(nil)
	s.restart()
	s.cleanup()
	assert.False(t, s.has(half))
	s.requireInvariants()
}

// The same for runtimes: one that cannot be understood is left alone.
func TestStrangeRuntimesAreLeftAlone(t *testing.T) {
	t.Parallel()
	good := `1 {"seq":900,"kind":"active","name":"strange"}`
	for what, edit := range map[string]func(fs *fakeFS){
		"unreadable":  set(propRecord+testID("1"), "what"),
		"two records": set(propRecord+testID("1"), good),
		"only a committed one": func(fs *fakeFS) {
			clear(fs.props)
			fs.props[propRecord+testID("1")] = strings.Replace(good, "active", "committed", 1)
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
			s.pool.editFS(runtime, edit)
			s.start()
			assert.Contains(t, s.log.String(), runtime)
			assert.Equal(t, []string{"base"}, s.names())
			s.cleanup()
			assert.Contains(t, s.datasets(), runtime)
			s.remove("base") // its template has a clone, and stays
			s.cleanup()
			s.cleanup()
			assert.Contains(t, s.datasets(), runtime)
			assert.Equal(t, 1, strings.Count(s.log.String(), "failed to destroy dataset"), "and it is said why its template stays")
			assert.Contains(t, s.log.String(), "foreign clones")
		})
	}
}

// Strangers' datasets are not ours to destroy, wherever they lie.
func TestStrangersAreLeftAlone(t *testing.T) {
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

// A runtime of ours is a clone of a template. What only has such a name was
// made by somebody else, and has files of his.
func TestARuntimeThatIsNoCloneIsLeftAlone(t *testing.T) {
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

// An administrator promoted a container's runtime over its template, or sent
// one from elsewhere: a record whose origin is none of ours works on.
// A commit that is cut off between the end of the runtime's record and its trash
// mark leaves a runtime with neither. One that is mounted cannot be destroyed at
// the next start: it is marked then.
func TestARuntimeWithoutRecordOrMarkIsMarked(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	runtime := s.dataset("web")
	s.pool.edit(func(state *fakeState) { state.mounted[runtime] = true })
	s.commit("saved", "web")
	require.NoError(t, s.sn.Close())
	s.pool.editFS(runtime, func(fs *fakeFS) { delete(fs.props, propGarbage) })
	s.start()
	s.cleanup()
	list, err := s.pool.List(s.ctx, s.base.String())
	require.NoError(t, err)
	require.NoError(t, CheckInvariants(s.base, list))
	assert.Contains(t, s.datasets(), runtime)
	s.pool.edit(func(state *fakeState) { delete(state.mounted, runtime) })
	s.restart()
	s.requireInvariants()
	assert.NotContains(t, s.datasets(), runtime)
}

func TestAnActiveSnapshotOnAStrangersOrigin(t *testing.T) {
	t.Parallel()
	s, _ := beginHolding(t, func(c *Config) { c.CacheKeep = 0 })
	s.prepare("web", "")
	s.write("web", "w;")
	require.NoError(t, s.pool.Create(s.ctx, "tank/mine", nil))
	require.NoError(t, s.pool.Apply(s.ctx, zfs.Snapshot("tank/mine@x")))
	s.pool.editFS(s.dataset("web"), func(fs *fakeFS) { fs.origin = "tank/mine@x" })
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

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		edit func(s *fakeState)
		says string
	}{
		"no base":            {func(s *fakeState) { delete(s.fs, "tank/z") }, "zfstpl init tank/z"},
		"not ours":           {func(s *fakeState) { delete(s.fs["tank/z"].props, VersionProperty) }, "not a zfstpl base"},
		"newer":              {func(s *fakeState) { s.fs["tank/z"].props[VersionProperty] = "2" }, "newer zfstpl"},
		"no empty template":  {func(s *fakeState) { delete(s.fs, "tank/z/storage/empty") }, "zfstpl init tank/z"},
		"half an empty one":  {func(s *fakeState) { clear(s.fs["tank/z/storage/empty"].snaps) }, "zfstpl init tank/z"},
		"no storage, at all": {func(s *fakeState) { delete(s.fs, "tank/z/storage/empty"); delete(s.fs, "tank/z/storage") }, "init"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			require.NoError(t, s.sn.Close())
			s.pool.edit(c.edit)
			before := s.datasets()
			require.ErrorContains(t, s.tryStart(), c.says)
			assert.Equal(t, before, s.datasets(), "and touches nothing")
		})
	}
	s := newFixture(t)
	s.pool.before = func(string) error { return fakeError("list", "tank/z", zfs.ErrSuspended) }
	assert.ErrorIs(t, s.tryStart(), zfs.ErrSuspended)
}

// Of a chain whose records are partly unreadable, what stands on them is shown
// without a parent: containerd can remove it, and the data stays right.
func TestARecordWithoutItsParent(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.layer("app", "base", "a;")
	s.prepare("web", "app")
	s.view("look", "base")
	template := s.templateOf("base")
	s.pool.editFS(template, func(fs *fakeFS) {
		for prop, value := range fs.props {
			if strings.Contains(value, `"base"`) && strings.Contains(value, "committed") {
				fs.props[prop] = "what"
			}
		}
	})
	s.restart()
	assert.Equal(t, map[string]seen{
		"app":  {snapshots.KindCommitted, "", nil, "b;a;"},
		"web":  {snapshots.KindActive, "app", nil, "b;a;"},
		"look": {snapshots.KindView, "", nil, "b;"},
	}, s.visible())
	s.remove("look", "web", "app")
	s.cleanup()
	assert.Contains(t, s.datasets(), template)
}

// The newest start must not take a number that an older record has.
func TestTheSequenceGoesOn(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	for range 5 {
		s.prepare("web", "")
		s.remove("web")
	}
	s.prepare("web", "")
	last := s.sn.index.records["web"].seq
	s.restart()
	s.prepare("db", "")
	assert.Greater(t, s.sn.index.records["db"].seq, last)
}

// A template that is warm by the loss of a record that another superseded was
// in use until then: it is kept from then on, not from when it was made.
func TestASupersededRecordsTemplateIsWarmFromNowOn(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(time.Hour))
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.cleanup()
	s.pool.editFS(s.templateOf(a), func(fs *fakeFS) { fs.born = time.Now().Add(-24 * time.Hour) })
	s.remove(a)
	s.prepare(a, "")
	s.crash()
	s.cleanup()
	assert.Contains(t, s.datasets(), "tank/z/storage/"+chain("a"))
}

// A record longer than one property is cleared first part first and written last
// part first. What is left when that is cut off names nothing; the next start
// takes it away, and leaves the datasets alone.
func TestTheRemainsOfRecordsAreTakenAway(t *testing.T) {
	t.Parallel()
	s := newFixture(t, keepCached(time.Hour))
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.prepare("web", a)
	template, runtime := s.templateOf(a), s.dataset("web")
	require.NoError(t, s.sn.Close())
	remains := propRecord + testID("7") + ":1"
	for _, dataset := range []string{template, runtime} {
		s.pool.editFS(dataset, set(remains, "the middle of a label"))
		s.pool.editFS(dataset, set(propRecord+"stranger:1", "not ours"))
	}
	s.start()
	require.NoError(t, s.sn.Close())
	for _, dataset := range []string{template, runtime} {
		s.pool.editFS(dataset, func(fs *fakeFS) {
			assert.NotContains(t, fs.props, remains)
			assert.Contains(t, fs.props, propRecord+"stranger:1")
		})
	}
	s.start()
	assert.Equal(t, []string{a, "web"}, s.names())
}

// Snapshots of comparisons that were killed go with the next start, wherever a
// commit has taken them; those that are looked at stay, and go with their
// dataset. They are no foreigners.
func TestSnapshotsOfKilledComparisons(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	a, _ := s.pull("default", "", chain("a"), "a;")
	s.prepare("web", a)
	left := zfs.TemporaryPrefix + "LEFT"
	for _, dataset := range []string{s.templateOf(a), s.dataset("web")} {
		s.pool.editFS(dataset, func(fs *fakeFS) { fs.snaps[left] = fakeSnap{} })
	}
	s.restart()
	for _, dataset := range []string{s.templateOf(a), s.dataset("web")} {
		s.pool.editFS(dataset, func(fs *fakeFS) { assert.NotContains(t, fs.snaps, left) })
	}
	s.pool.editFS(s.dataset("web"), func(fs *fakeFS) { fs.snaps[left] = fakeSnap{} })
	s.remove("web", a)
	s.cleanup()
	assert.NotContains(t, s.log.String(), "foreign")
	assert.NotContains(t, strings.Join(s.datasets(), " "), "/runtime/")
}

// A snapshot that was committed behind a start which found two records of it does not
// come back as an active one.
func TestACommitBehindAStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t, torn)
		s.prepare("web", "")
		s.write("web", "w;")
		s.pool.crashAfter = 1 // the new record, and the old one is still there
		_, err := s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{"a": "b"}})
		require.ErrorIs(t, err, errDead)
		s.crash()
		s.commit("saved", "web")
		s.crash()
		assert.Equal(t, []string{"saved"}, s.names())
	})
}
