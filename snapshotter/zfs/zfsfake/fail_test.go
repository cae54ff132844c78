package zfsfake

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// reports is a test that keeps what the pool reports.
type reports struct {
	testing.TB
	errors []string
	ends   []func()
}

func (r *reports) Helper()           {}
func (r *reports) Cleanup(fn func()) { r.ends = append(r.ends, fn) }
func (r *reports) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *reports) Fatalf(format string, args ...any) { r.Errorf(format, args...) }
func (r *reports) Logf(format string, args ...any)   {}

func (r *reports) end() {
	for _, fn := range slices.Backward(r.ends) {
		fn()
	}
}

// newRun returns a pool with the file system tank/run that reports to r.
func newRun(t *testing.T, options ...Option) (*Pool, *reports) {
	t.Helper()
	r := &reports{TB: t}
	p := New(r, options...)
	require.NoError(t, p.Create(t.Context(), "tank/run", nil))
	return p, r
}

// commit is the list of a commit of tank/run as the template tank/tpl.
var commit = []zfs.Op{
	zfs.Snapshot("tank/run@x"), zfs.Clone("tank/run@x", "tank/tpl"), zfs.Promote("tank/tpl", "tank/run"),
	zfs.Set("tank/tpl", "a:b", "c"), zfs.Inherit("tank/run", "a:b"),
}

// A failure at a named point leaves the transactions before it, or also the transaction of its
// operation, whichever operations are one transaction.
func TestFailureHappensAtItsOperation(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		options []Option
		at      Point
		has     []string // of: the clone, the promote, the property
	}{
		"torn, before the promote":           {[]Option{Torn}, Before(Promote), []string{"clone"}},
		"torn, after the promote":            {[]Option{Torn}, After(Promote), []string{"clone", "promote"}},
		"torn, before the property":          {[]Option{Torn}, Before(Set), []string{"clone", "promote"}},
		"torn, before that of a dataset":     {[]Option{Torn}, Before(Set, Inherit).Of("tank/run"), []string{"clone", "promote", "set"}},
		"torn, before a snapshot of it":      {[]Option{Torn}, Before(Snapshot).Of("tank/run"), nil},
		"in steps, after the clone":          {[]Option{InSteps}, After(Clone), []string{"clone"}},
		"in steps, before the property":      {[]Option{InSteps}, Before(Set), []string{"clone"}},
		"one transaction, before a part":     {nil, Before(Promote), nil},
		"one transaction, after a part":      {nil, After(Clone), []string{"clone", "promote", "set"}},
		"one transaction, before the call":   {nil, Before(Apply), nil},
		"one transaction, after any call":    {nil, After(Call), []string{"clone", "promote", "set"}},
		"torn, before the first transaction": {[]Option{Torn}, Before(Transaction), nil},
	} {
		for how, failure := range map[string]Failure{"kill": Kill(), "crash": Crash(), "hook": Do(func() error { return ErrKilled })} {
			p, r := newRun(t, c.options...)
			end := p.FailAt(c.at, failure)
			err := p.Apply(t.Context(), commit...)
			require.Error(t, err, "%s, %s", what, how)
			assert.Equal(t, how == "crash", errors.Is(err, ErrCrashed), "%s, %s", what, how)
			assert.Equal(t, how == "crash", p.HasCrashed(), "%s, %s", what, how)
			assert.True(t, end())
			r.end()
			assert.Empty(t, r.errors, "%s, %s", what, how)
			var has []string
			template := p.AfterCrash().Now().FS["tank/tpl"]
			if template.Native != nil {
				has = append(has, "clone")
			}
			if len(template.Snaps) > 0 {
				has = append(has, "promote")
			}
			if template.Props["a:b"] != "" {
				has = append(has, "set")
			}
			assert.Equal(t, c.has, has, "%s, %s", what, how)
		}
	}
}

// A point that is not reached is reported when its failure ends, and at the end of the test.
func TestPointThatIsNotReachedIsReported(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		at     Point
		limits []Limit
		says   string // "" if nothing is reported
	}{
		"reached":                       {Before(Promote), nil, ""},
		"an operation that is not done": {Before(Quota), nil, "before quota"},
		"of another dataset":            {After(Set).Of("tank/other"), nil, "after set of tank/other"},
		"after a call that fails":       {After(Destroy), nil, "after destroy"},
		"one of two kinds":              {Before(Quota, Clone), nil, ""},
		"optional":                      {Before(Quota), []Limit{Optional()}, ""},
		"it begins":                     {Before(Promote), []Limit{From(After(Snapshot))}, ""},
		"it does not begin":             {Before(Promote), []Limit{From(After(Quota))}, "after quota"},
		"it begins too late":            {Before(Snapshot), []Limit{From(After(Snapshot))}, "before snapshot"},
		"it ends":                       {Before(Clone), []Limit{Until(Before(Promote))}, ""},
		"it does not end":               {Before(Clone), []Limit{Until(Before(Quota))}, "before quota"},
		"it ends too early":             {Before(Promote), []Limit{Until(Before(Clone))}, "before promote"},
		"not often enough":              {Before(Promote), []Limit{Every(2)}, "before promote"},
	} {
		for _, ends := range []bool{true, false} {
			p, r := newRun(t, Torn)
			end := p.FailAt(c.at, Do(func() error { return nil }), c.limits...)
			require.NoError(t, p.Apply(t.Context(), commit...))
			if ends {
				assert.Equal(t, c.says == "" && what != "optional" || what == "it does not end", end(), what)
			}
			r.end()
			if c.says == "" {
				assert.Empty(t, r.errors, what)
			} else if assert.Len(t, r.errors, 1, what) {
				assert.Contains(t, r.errors[0], `"`+c.says+`"`, what)
			}
		}
	}
}

// A failure happens as often as its limits allow, and not after its end.
func TestLimitsSayHowOftenAFailureHappens(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		failure Failure
		limits  []Limit
		fails   string // of six calls
	}{
		"no limit": {Refuse(zfs.ErrBusy), nil, "111111"},
		"once":     {Refuse(zfs.ErrBusy), []Limit{Once()}, "100000"},
		"times":    {Refuse(zfs.ErrBusy), []Limit{Times(2)}, "110000"},
		"every":    {Refuse(zfs.ErrBusy), []Limit{Every(2)}, "010101"},
		"kill":     {Kill(), nil, "100000"},
		"crash":    {Crash(), nil, "111111"},
		"from":     {Refuse(zfs.ErrBusy), []Limit{From(Before(Apply))}, "011111"},
	} {
		p, _ := newRun(t)
		count := p.Count(Before(Apply))
		end := p.FailAt(Before(Apply).Of("tank/run"), c.failure, c.limits...)
		var fails string
		for range 6 {
			if p.Apply(t.Context(), zfs.Set("tank/run", "a:b", "c")) == nil {
				fails += "0"
			} else {
				fails += "1"
			}
		}
		assert.Equal(t, c.fails, fails, what)
		assert.Equal(t, 6, count(), what)
		end()
		if what != "crash" {
			assert.NoError(t, p.Apply(t.Context(), zfs.Set("tank/run", "a:b", "c")), what)
		}
	}
}

// All failures of a point happen, and the first error is returned. It is about the operation.
func TestFirstErrorOfAPointIsReturned(t *testing.T) {
	t.Parallel()
	p, _ := newRun(t)
	p.FailAt(Before(Call), Refuse(zfs.ErrBusy))
	ran := false
	p.FailAt(Before(Apply), Do(func() error { ran = true; return ErrKilled }))
	err := p.Apply(t.Context(), zfs.Set("tank/run", "a:b", "c"))
	var refused *zfs.Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, zfs.Error{Op: "apply", Dataset: "tank/run", Kind: zfs.ErrBusy}, *refused)
	assert.True(t, ran)
}

// Each yields every point of an operation by its name, and then one that is not reached.
func TestEachYieldsEveryPoint(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		options []Option
		want    []string
	}{
		"torn": {[]Option{Torn}, []string{"before snapshot of tank/run@x", "before clone of tank/tpl", "before promote of tank/tpl",
			"before set of tank/tpl", "before inherit of tank/run", "not interrupted"}},
		"one transaction": {nil, []string{"before snapshot of tank/run@x, clone of tank/tpl, promote of tank/tpl, set of tank/tpl, inherit of tank/run", "not interrupted"}},
	} {
		var got []string
		for cut := range Each(t, Before(Transaction)) {
			p, r := newRun(t, c.options...)
			p.FailAt(cut.Point, Crash())
			err := p.Apply(t.Context(), commit...)
			assert.Equal(t, cut.Reached(), errors.Is(err, ErrCrashed))
			got = append(got, cut.String())
			assert.Equal(t, len(got) == 3 && what == "torn", cut.Is(Promote) && !cut.Is(Set))
			r.end()
			assert.Empty(t, r.errors)
		}
		assert.Equal(t, c.want, got, what)
	}
}

// A loop that does not use a cut, or whose operation has no cut or does not end, is reported.
func TestEachEnds(t *testing.T) {
	t.Parallel()
	p, _ := newRun(t)
	for what, c := range map[string]struct {
		body func(cut *Cut)
		says string
	}{
		"unused": {func(*Cut) {}, "does not use cut 0"},
		"empty":  {func(cut *Cut) { p.FailAt(cut.Point, Kill())() }, `reaches no point "before flush"`},
		"endless": {func(cut *Cut) {
			end := p.FailAt(cut.Point, Kill())
			for p.Flush(t.Context(), "tank/run") == nil {
			}
			end()
		}, "more than 100 points"},
	} {
		r := &reports{TB: t}
		for cut := range Each(r, Before(Flush)) {
			c.body(cut)
			if len(r.errors) > 0 {
				break
			}
		}
		require.NotEmpty(t, r.errors, what)
		assert.Contains(t, r.errors[0], c.says, what)
	}
	r := &reports{TB: t}
	for cut := range EachOrNone(r, Before(Flush)) {
		p.FailAt(cut.Point, Kill())()
	}
	assert.Empty(t, r.errors)
}
