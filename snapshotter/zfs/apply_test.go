package zfs

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// commitOf returns the ops of a commit.
func commitOf(pool string) []Op {
	return []Op{
		Snapshot(pool + "/run@x"), Clone(pool+"/run@x", pool+"/tpl"), Promote(pool+"/tpl", pool+"/run"),
		Set(pool+"/tpl", "a:record", "{ \"k\": 'v' }"), Inherit(pool+"/run", "a:record"),
	}
}

func TestApplyIsOneProgramIfProgramsClone(t *testing.T) {
	t.Parallel()
	f := newFake(t, done)
	require.NoError(t, f.client(true).Apply(t.Context(), commitOf(f.pool)...))
	calls := f.calls(t)
	require.Len(t, calls, 1)
	assert.Equal(t, applyScript, calls[0].Stdin)
	p := f.pool
	assert.Equal(t, []string{
		"snapshot", p + "/run@x", "", "", "",
		"clone", p + "/tpl", p + "/run@x", "", "",
		"promote", p + "/tpl", p + "/run", "", "",
		"set", p + "/tpl", "", "a:record", "{ \"k\": 'v' }",
		"inherit", p + "/run", "", "a:record", "",
	}, programWords(t, f, calls[0]))
}

// A command line is visible to every user of the machine, so no property is on one. A
// property keeps its value, whatever characters it has.
func TestNoPropertyIsOnACommandLine(t *testing.T) {
	t.Parallel()
	for _, clones := range []bool{true, false} {
		f := newFake(t, done, result{Match: "^clone"})
		secrets := []string{"-n", "--", `sec"ret`, `sec\ret\`, "]]secret--[[", `\065secret`, ""}
		ops := []Op{Clone(f.pool+"/tpl@x", f.pool+"/run"), Quota(f.pool+"/run", 1<<30)}
		if clones {
			ops = nil
		}
		for i, secret := range secrets {
			ops = append(ops, Set(f.pool+"/run", fmt.Sprint("a:", i), secret))
		}
		if !clones {
			ops = append(ops, Clone(f.pool+"/tpl@x", f.pool+"/next"), Set(f.pool+"/next", "a:b", "secret"))
		}
		require.NoError(t, f.client(clones).Apply(t.Context(), ops...))
		var given []string
		for _, call := range f.calls(t) {
			assert.NotContains(t, strings.Join(call.Args, " "), "ret")
			given = append(given, call.Argv...)
		}
		for _, secret := range secrets {
			assert.Contains(t, given, secret)
		}
	}
}

// A script receives arguments with any bytes unchanged.
func TestScriptHasItsArguments(t *testing.T) {
	t.Parallel()
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	argv := []string{string(all), "", "\n", `",` + "\n", "1\x0023", "plain"}
	text := withArguments("return 1", argv)
	for _, c := range []byte(text) {
		require.True(t, c == '\n' || ' ' <= c && c <= '~', "%q", c)
	}
	script, found := readScript(text)
	assert.Equal(t, "return 1", script)
	assert.Equal(t, argv, found)
}

func TestApplyRunsNothingForInvalidOps(t *testing.T) {
	t.Parallel()
	f := newFake(t, done)
	for _, clones := range []bool{true, false} {
		c := f.client(clones)
		require.NoError(t, c.Apply(t.Context()))
		for _, bad := range []Op{
			Snapshot("-o@x"), Clone(f.pool+"/a@x", "bad name"), Set(f.pool+"/a", "quota", "1"), Set("elsewhere/a", "a:b", "x"),
			Set(f.pool+"2/a", "a:b", "x"),
		} {
			assertKind(t, ErrInvalid, c.Apply(t.Context(), Set(f.pool+"/a", "a:b", "x"), bad))
		}
	}
	assert.Empty(t, f.calls(t))
}

func TestApplyReturnsTheErrorOfTheProgram(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		result result
		kind   error
		text   string
	}{
		"exists":         {result{Out: `{"return":{"errno":17,"op":"clone","name":"POOL/tpl"}}`}, ErrExists, "zfs clone pool"},
		"out of space":   {result{Out: `{"return":{"errno":28,"op":"snapshot","name":"POOL/run@x"}}`}, ErrNoSpace, "zfs snapshot pool"},
		"odd errno":      {result{Out: `{"return":{"errno":34,"op":"set","name":"POOL/tpl"}}`}, nil, "zfs set pool"},
		"no JSON":        {result{Out: "Channel program fully executed.\n"}, nil, "not JSON"},
		"truncated JSON": {result{Out: `{"return":{"err`}, nil, "not JSON"},
		"odd JSON":       {result{Out: `{"return":{"errno":"many"}}`}, nil, "unexpected result"},
		"no errno":       {result{Out: `{"return":{}}`}, nil, "unexpected result"},
		"a list":         {result{Out: `{"return":[1,2]}`}, nil, "unexpected result"},
		"Lua's error": {result{Status: 1, Err: "Channel program execution failed:\n[string \"channel program\"]:5: attempt to index a nil value\n"},
			nil, "attempt to index"},
		"not root": {result{Status: 1, Err: "Channel program execution failed:\nPermission denied. Channel programs must be run as root.\n"}, ErrPermission, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c.result.Match = "^program"
			f := newFake(t, c.result)
			err := f.client(true).Apply(t.Context(), commitOf(f.pool)...)
			require.ErrorContains(t, err, c.text)
			assertKind(t, c.kind, err)
		})
	}
}

// Below 2.4 the ops between clones are a program, and a clone is a command.
func TestApplyTakesStepsIfProgramsDoNotClone(t *testing.T) {
	t.Parallel()
	f := newFake(t, done, result{Match: "^clone"})
	p := f.pool
	ops := append(commitOf(p), Clone(p+"/tpl@x", p+"/next"), Set(p+"/next", "a:c", "1 -o x"), Set(p+"/next", "a:b", "2"), Set(p+"/tpl", "a:d", "3"))
	require.NoError(t, f.client(false).Apply(t.Context(), ops...))
	calls := f.calls(t)
	require.Len(t, calls, 6)
	assert.Equal(t, []string{"snapshot", p + "/run@x", "", "", ""}, programWords(t, f, calls[0]))
	assert.Equal(t, []string{"clone", p + "/run@x", p + "/tpl"}, calls[1].Args)
	assert.Len(t, programWords(t, f, calls[2]), 3*5, "promote and what follows it are one program")
	assert.Equal(t, []string{"clone", p + "/tpl@x", p + "/next"}, calls[3].Args)
	assert.Equal(t, []string{"set", p + "/next", "", "a:c", "1 -o x", "set", p + "/next", "", "a:b", "2"}, programWords(t, f, calls[4]),
		"the properties of a clone are set directly after it, in their order: a killed program leaves a first part of them")
	assert.Equal(t, []string{"set", p + "/tpl", "", "a:d", "3"}, programWords(t, f, calls[5]))
}

// If a step fails, what the steps before it created is destroyed, last first.
func TestApplyInStepsRollsBack(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		results   []result
		destroyed []string
		kind      error
		text      string
	}{
		"the snapshot fails": {[]result{{Match: "^program", Out: `{"return":{"errno":28}}`}}, nil, ErrNoSpace, ""},
		"the clone fails": {[]result{done, {Match: "^clone", Status: 1, Err: "cannot create 'x': dataset already exists\n"}},
			[]string{"/run@x"}, ErrExists, ""},
		"the promote fails": {[]result{{Match: "promote", Out: `{"return":{"errno":28,"op":"promote"}}`}, done, {Match: "^clone"}},
			[]string{"/tpl", "/run@x"}, ErrNoSpace, ""},
		"and the rollback fails": {[]result{{Match: "promote", Out: `{"return":{"errno":28}}`},
			{Match: " - POOL/tpl POOL/run@x$", Out: `{"return":{"errno":16,"name":"POOL/tpl"}}`}, done, {Match: "^clone"}},
			[]string{"/tpl", "/run@x"}, nil, "busy"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, c.results...)
			err := f.client(false).Apply(t.Context(), commitOf(f.pool)...)
			require.ErrorContains(t, err, c.text)
			if c.kind != nil {
				assertKind(t, c.kind, err)
			}
			var destroyed []string
			for _, call := range f.calls(t) {
				if call.Stdin != rollbackScript {
					continue
				}
				for _, name := range programWords(t, f, call) {
					destroyed = append(destroyed, strings.TrimPrefix(name, f.pool))
				}
			}
			assert.Equal(t, c.destroyed, destroyed)
		})
	}
}

// A quota is a native property, which channel programs cannot set: the clone includes
// it.
func TestApplySetsAQuotaWithTheClone(t *testing.T) {
	t.Parallel()
	for _, clones := range []bool{true, false} {
		f := newFake(t, done, result{Match: "^clone"})
		p := f.pool
		require.NoError(t, f.client(clones).Apply(t.Context(),
			Clone(p+"/tpl@x", p+"/run"), Quota(p+"/run", 1<<30), Set(p+"/run", "a:record", "r"), Inherit(p+"/tpl", "a:b")))
		calls := f.calls(t)
		require.Len(t, calls, 3)
		assert.Equal(t, []string{"clone", "-o", "refquota=1073741824", p + "/tpl@x", p + "/run"}, calls[0].Args)
		assert.Equal(t, []string{"set", p + "/run", "", "a:record", "r"}, programWords(t, f, calls[1]))
		assert.Equal(t, []string{"inherit", p + "/tpl", "", "a:b", ""}, programWords(t, f, calls[2]))
		for _, ops := range [][]Op{
			{Quota(p+"/run", 1)},
			{Clone(p+"/tpl@x", p+"/run"), Quota(p+"/other", 1)},
			{Clone(p+"/tpl@x", p+"/run"), Set(p+"/other", "a:b", "c"), Quota(p+"/run", 1)},
			{Clone(p+"/tpl@x", p+"/run"), Snapshot(p + "/run@x"), Quota(p+"/run", 1)},
			{Clone(p+"/tpl@x", p+"/run"), Quota("bad name", 1)},
		} {
			assertKind(t, ErrInvalid, f.client(clones).Apply(t.Context(), ops...))
		}
		assert.Empty(t, f.calls(t))
	}
}

// A transaction cannot be cancelled: Apply continues after its context has ended.
func TestApplyIgnoresCancellation(t *testing.T) {
	t.Parallel()
	for _, clones := range []bool{true, false} {
		f := newFake(t, done, result{Match: "^clone"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, f.client(clones).Apply(ctx, commitOf(f.pool)...))
		assert.NotEmpty(t, f.calls(t))
	}
}

// A listing can be cancelled, even while the command hangs.
func TestListEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^list", Hang: true})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for len(f.tryCalls()) == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel(nil)
	}()
	_, err := f.client(true).List(ctx, f.pool)
	assert.ErrorIs(t, err, context.Canceled)
}
