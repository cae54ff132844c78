package snapshotter

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/model"
)

func TestLifecycleOfAContainer(t *testing.T) {
	t.Parallel()
	for what, option := range map[string]func(*fixture){"atomic": func(*fixture) {}, "in steps": inSteps} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, option, keepCached(0))
			s.layer("base", "", "etc;")
			s.layer("app", "base", "bin;")

			mounts := s.prepare("web", "app")
			assert.Equal(t, []mount.Mount{{Type: "zfs", Source: s.dataset("web")}}, mounts, "not read-only: containerd would take it for unpacked")
			s.write("web", "log;")
			assert.Equal(t, "etc;bin;log;", s.visible()["web"].Content)
			assert.Equal(t, "etc;bin;", s.visible()["app"].Content, "the template is unchanged")

			s.commit("saved", "web")
			assert.Equal(t, map[string]model.Snapshot{
				"base":  {Kind: snapshots.KindCommitted, Content: "etc;"},
				"app":   {Kind: snapshots.KindCommitted, Parent: "base", Content: "etc;bin;"},
				"saved": {Kind: snapshots.KindCommitted, Parent: "app", Content: "etc;bin;log;"},
			}, s.visible())
			s.requireInvariants()

			s.remove("saved", "app", "base")
			assert.Empty(t, s.walk())
			s.requireInvariants()
			assert.Equal(t, []string{"tank/z/storage/empty"}, s.datasets(), "only the empty template is left")
		})
	}
}

// A view mounts the template's snapshot read-only, without a clone.
func TestViewMountsTheSnapshotItself(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "etc;")
	before := s.datasets()
	want := []mount.Mount{{Type: "zfs", Source: s.templateOf("base") + "@extracted", Options: []string{"ro"}}}
	assert.Equal(t, want, s.view("look", "base"))
	again, err := s.sn.Mounts(s.ctx, "look")
	require.NoError(t, err)
	assert.Equal(t, want, again)
	assert.Equal(t, before, s.datasets())

	// rootfs.CreateDiff views "" to compare the first layer with an empty directory.
	assert.Equal(t, []mount.Mount{{Type: "zfs", Source: "tank/z/storage/empty@extracted", Options: []string{"ro"}}}, s.view("nothing", ""))
	s.restart()
	again, err = s.sn.Mounts(s.ctx, "look")
	require.NoError(t, err)
	assert.Equal(t, want, again)
	s.remove("look", "nothing")
	s.requireInvariants()
}

func TestErrorsHaveTheKindsOfTheContract(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "")
	s.prepare("web", "base")
	s.view("look", "base")
	before := dump(s.sn)
	prepare := func(key, parent string) error { _, err := s.sn.Prepare(s.ctx, key, parent); return err }
	view := func(key, parent string) error { _, err := s.sn.View(s.ctx, key, parent); return err }
	mounts := func(key string) error { _, err := s.sn.Mounts(s.ctx, key); return err }
	update := func(info snapshots.Info, fields ...string) error {
		_, err := s.sn.Update(s.ctx, info, fields...)
		return err
	}
	opt := errors.New("from the option")
	failing := func(*snapshots.Info) error { return opt }
	for what, c := range map[string]struct{ got, want error }{
		"prepare: no parent":           {prepare("x", "none"), errdefs.ErrNotFound},
		"prepare: parent is active":    {prepare("x", "web"), errdefs.ErrInvalidArgument},
		"prepare: parent is a view":    {prepare("x", "look"), errdefs.ErrInvalidArgument},
		"prepare: its own parent":      {prepare("x", "x"), errdefs.ErrNotFound},
		"prepare: key is taken":        {prepare("web", "base"), errdefs.ErrAlreadyExists},
		"prepare: key is committed":    {prepare("base", ""), errdefs.ErrAlreadyExists},
		"prepare: no key":              {prepare("", "base"), errdefs.ErrInvalidArgument},
		"prepare: key has a NUL":       {prepare("a\x00b", ""), errdefs.ErrInvalidArgument},
		"prepare: key is not UTF-8":    {prepare("\xff", ""), errdefs.ErrInvalidArgument},
		"prepare: key is too long":     {prepare(strings.Repeat("x", 4096+1), ""), errdefs.ErrInvalidArgument},
		"view: no parent":              {view("x", "none"), errdefs.ErrNotFound},
		"view: parent is active":       {view("x", "web"), errdefs.ErrInvalidArgument},
		"view: key is taken":           {view("look", "base"), errdefs.ErrAlreadyExists},
		"commit: no key":               {s.sn.Commit(s.ctx, "x", "none"), errdefs.ErrNotFound},
		"commit: of a view":            {s.sn.Commit(s.ctx, "x", "look"), errdefs.ErrFailedPrecondition},
		"commit: of a committed":       {s.sn.Commit(s.ctx, "x", "base"), errdefs.ErrFailedPrecondition},
		"commit: name is taken":        {s.sn.Commit(s.ctx, "base", "web"), errdefs.ErrAlreadyExists},
		"commit: name is the key":      {s.sn.Commit(s.ctx, "web", "web"), errdefs.ErrAlreadyExists},
		"commit: no name":              {s.sn.Commit(s.ctx, "", "web"), errdefs.ErrInvalidArgument},
		"commit: onto another parent":  {s.sn.Commit(s.ctx, "x", "web", snapshots.WithParent("look")), errdefs.ErrInvalidArgument},
		"remove: with children":        {s.sn.Remove(s.ctx, "base"), errdefs.ErrFailedPrecondition},
		"mounts: none":                 {mounts("none"), errdefs.ErrNotFound},
		"mounts: of a committed":       {mounts("base"), errdefs.ErrFailedPrecondition},
		"stat: none":                   {second(s.sn.Stat(s.ctx, "none")), errdefs.ErrNotFound},
		"usage: none":                  {second(s.sn.Usage(s.ctx, "none")), errdefs.ErrNotFound},
		"update: none":                 {update(snapshots.Info{Name: "none"}), errdefs.ErrNotFound},
		"update: of the parent":        {update(snapshots.Info{Name: "web", Parent: "x"}, "parent"), errdefs.ErrInvalidArgument},
		"update: of the kind":          {update(snapshots.Info{Name: "web"}, "labels.a", "kind"), errdefs.ErrInvalidArgument},
		"walk: bad filter":             {s.sn.Walk(s.ctx, nil, "name=="), errdefs.ErrInvalidArgument},
		"prepare: option fails":        {second(s.sn.Prepare(s.ctx, "x", "", failing)), opt},
		"view: option fails":           {second(s.sn.View(s.ctx, "x", "", failing)), opt},
		"commit: option fails":         {s.sn.Commit(s.ctx, "x", "web", failing), opt},
		"remove: what is not there":    {s.sn.Remove(s.ctx, "none"), nil},
		"remove: nothing":              {s.sn.Remove(s.ctx, ""), nil},
		"remove: what cannot be there": {s.sn.Remove(s.ctx, "\xff\x00"), nil},
	} {
		if c.want == nil {
			assert.NoError(t, c.got, what)
			continue
		}
		assert.ErrorIs(t, c.got, c.want, what)
	}
	assert.Equal(t, before, dump(s.sn), "the index is unchanged")
	s.requireInvariants()
}

func second[T any](_ T, err error) error { return err }

func TestStatReturnsWhatWasGiven(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	start := time.Now()
	s.prepare("web", "", label("a", "b"))
	info := s.stat("web")
	assert.Equal(t, "web", info.Name)
	assert.Equal(t, snapshots.KindActive, info.Kind)
	assert.Equal(t, map[string]string{"a": "b"}, info.Labels)
	assert.WithinRange(t, info.Created, start, time.Now())
	assert.Equal(t, info.Created, info.Updated)

	info.Labels["a"] = "changed by the caller"
	assert.Equal(t, "b", s.stat("web").Labels["a"], "the result is a copy")
	s.walk()[0].Labels["a"] = "changed by the caller"
	assert.Equal(t, "b", s.stat("web").Labels["a"], "the result is a copy")

	// Commit replaces labels and times; the parent stays.
	s.commit("base", "web", label("c", "d"), snapshots.WithParent(""))
	assert.Equal(t, map[string]string{"c": "d"}, s.stat("base").Labels)
	s.restart()
	assert.Equal(t, map[string]string{"c": "d"}, s.stat("base").Labels)
}

func TestCommitAcceptsTheSameParent(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "")
	s.prepare("web", "base")
	s.commit("app", "web", snapshots.WithParent("base"))
	assert.Equal(t, "base", s.stat("app").Parent)
}

func TestUpdateReplacesTheGivenFields(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		fields []string
		want   map[string]string
	}{
		"all":      {nil, map[string]string{"a": "new", "n": "1"}},
		"labels":   {[]string{"labels"}, map[string]string{"a": "new", "n": "1"}},
		"one":      {[]string{"labels.a"}, map[string]string{"a": "new", "b": "old"}},
		"one more": {[]string{"labels.n"}, map[string]string{"a": "old", "b": "old", "n": "1"}},
		"two":      {[]string{"labels.a", "labels.n"}, map[string]string{"a": "new", "b": "old", "n": "1"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			old := map[string]string{"a": "old", "b": "old"}
			s.prepare("making base", "")
			s.commit("base", "making base", snapshots.WithLabels(old))
			s.prepare("web", "base", snapshots.WithLabels(old))
			s.view("look", "base", snapshots.WithLabels(old))
			for _, name := range []string{"base", "web", "look"} {
				before := s.stat(name)
				given := map[string]string{"a": "new", "n": "1"}
				info, err := s.sn.Update(s.ctx, snapshots.Info{Name: name, Parent: "ignored", Labels: given}, c.fields...)
				require.NoError(t, err)
				assert.Equal(t, c.want, info.Labels)
				given["a"] = "changed by the caller"
				assert.Equal(t, info, s.stat(name))
				assert.Equal(t, before.Parent, info.Parent)
				assert.Equal(t, before.Created, info.Created)
				assert.False(t, info.Updated.Before(before.Updated))
			}
			s.requireInvariants()
		})
	}
}

func TestWalkAppliesFilters(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "")
	s.prepare("web", "base", snapshots.WithLabels(map[string]string{"tier": "front", "a.b/c": "d"}))
	s.prepare("db", "base", label("tier", "back"))
	s.view("look", "base")
	for _, c := range []struct{ filters, want []string }{
		{nil, []string{"base", "db", "look", "web"}},
		{[]string{"name==web"}, []string{"web"}},
		{[]string{"name~=^.b"}, []string{"db"}},
		{[]string{"parent==base"}, []string{"db", "look", "web"}},
		{[]string{`parent==""`}, []string{"base"}},
		{[]string{"kind==active"}, []string{"db", "web"}},
		{[]string{"kind==view"}, []string{"look"}},
		{[]string{"kind==committed"}, []string{"base"}},
		{[]string{"labels.tier==front"}, []string{"web"}},
		{[]string{"labels.tier"}, []string{"db", "web"}},
		{[]string{`labels."a.b/c"==d`}, []string{"web"}},
		{[]string{"labels.tier,name==web"}, []string{"web"}},
		{[]string{"name==web", "name==look"}, []string{"look", "web"}},
		{[]string{"name==missing"}, []string{}},
		{[]string{"color==blue"}, []string{}},
	} {
		assert.Equal(t, c.want, s.names(c.filters...), "%q", c.filters)
	}
}

// The function that Walk calls may call any other method.
func TestWalkAllowsOtherMethods(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "")
	s.prepare("web", "base")
	var walked []string
	require.NoError(t, s.sn.Walk(s.ctx, func(ctx context.Context, info snapshots.Info) error {
		walked = append(walked, info.Name)
		s.stat("base")
		s.names()
		s.remove("web")
		s.prepare("new "+info.Name, "base")
		s.cleanup()
		return nil
	}))
	assert.Equal(t, []string{"base", "web"}, walked, "as it was when Walk began")
	stop := errors.New("stop")
	n := 0
	assert.ErrorIs(t, s.sn.Walk(s.ctx, func(context.Context, snapshots.Info) error { n++; return stop }), stop)
	assert.Equal(t, 1, n)
	s.requireInvariants()
}
