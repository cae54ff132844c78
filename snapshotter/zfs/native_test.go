package zfs

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/ioctl"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

func TestNativeErrorsHaveKinds(t *testing.T) {
	t.Parallel()
	assert.NoError(t, nativeError("clone", "tank/a", nil))
	for _, c := range []struct {
		err  error
		kind error
		text string
	}{
		{&ioctl.Error{Op: "clone", Err: syscall.EEXIST}, ErrExists, "zfs clone tank/a: already exists"},
		{&ioctl.Error{Op: "program", Err: syscall.ENOSPC}, ErrNoSpace, "out of space"},
		{&ioctl.Error{Op: "program", Err: syscall.EAGAIN}, ErrSuspended, "suspended"},
		{&ioctl.Error{Op: "program", Err: syscall.EROFS}, ErrPermission, "read-only"},
		{&ioctl.Error{Op: "program", Err: syscall.EINTR}, nil, "interrupted"},
		{&ioctl.Error{Op: "program", Err: ioctl.ErrnoProgram, Message: "[string \"channel program\"]:5:\n  attempt to index"}, nil, "attempt to index"},
		{&ioctl.Error{Op: "clone", Err: syscall.EINVAL, Each: map[string]syscall.Errno{"refquota": syscall.ENOSPC}}, ErrInvalid, "refquota: no space"},
		{&ioctl.Error{Op: "open", Err: fmt.Errorf("%w: release 3.0.0", ioctl.ErrUnsupported)}, ErrUnavailable, "release 3.0.0"},
		{&ioctl.Error{Op: "list", Err: context.Canceled}, context.Canceled, "canceled"},
		{&ioctl.Error{Op: "list", Err: context.DeadlineExceeded}, context.DeadlineExceeded, "deadline"},
		{&ioctl.Error{Op: "stat", Err: &nvlist.FormatError{}}, nil, "zfs clone tank/a"},
	} {
		err := nativeError("clone", "tank/a", c.err)
		assertKind(t, c.kind, err)
		assert.ErrorContains(t, err, c.text)
		assert.NotContains(t, err.Error(), "\n")
	}
}

func TestBothDriversParseTheSameResult(t *testing.T) {
	t.Parallel()
	native := fromList(nvlist.List{
		{Name: "errno", Value: int64(17)}, {Name: "name", Value: "tank/a"}, {Name: "clone", Value: true},
		{Name: "props", Value: nvlist.List{{Name: "1", Value: "one"}}},
	})
	command, err := parseResult([]byte(`{"return":{"errno":17,"name":"tank/a","clone":true,"props":{"1":"one"}}}`))
	require.NoError(t, err)
	assert.Equal(t, native, command)
	err = native.err("clone", "tank")
	assertKind(t, ErrExists, err)
	assert.ErrorContains(t, err, "zfs clone tank/a: ")
	assert.Equal(t, "one", native.table("props").text("1"))
	assert.Empty(t, native.table("none").text("1"))
	for _, out := range []string{"", "{", `{"return":5}`, `{"return":[1]}`, `{"return":"x"}`} {
		_, err := parseResult([]byte(out))
		assert.Error(t, err, out)
	}
}

// If native calls are not possible, Auto chooses the command and returns why, and
// Native fails.
func TestAutoFallsBackToTheCommand(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^program", Out: `{"return":{"clone":true}}`})
	for _, choice := range []Choice{Auto, Command} {
		c, err := Open(t.Context(), f.pool, "zfstpl:", choice)
		require.NoError(t, err)
		kind, whyNot := c.Kind()
		assert.Equal(t, Command, kind)
		if choice == Auto {
			assert.Error(t, whyNot)
		} else {
			assert.NoError(t, whyNot)
		}
		require.NoError(t, c.Close())
	}
	_, err := Open(t.Context(), f.pool, "zfstpl:", Native)
	assert.Error(t, err)
	_, err = Open(t.Context(), f.pool, "zfstpl:", "ioctl")
	assertKind(t, ErrInvalid, err)
}

// Watch reports each call before and after it.
func TestWatchReportsEveryCall(t *testing.T) {
	t.Parallel()
	f := newFake(t, done, result{Match: "^clone"}, result{Match: "^list"}, result{Match: "^get", Out: "1\n2\n3\n0\n"})
	c := f.client(false)
	var points []string
	c.Watch(func(point string) { points = append(points, point) })
	ctx := t.Context()
	require.NoError(t, c.Apply(ctx, Clone(f.pool+"/a@x", f.pool+"/b"), Set(f.pool+"/a", "a:b", "c")))
	require.NoError(t, second(c.Space(ctx, f.pool)))
	_ = c.Flush(ctx, f.pool) // there is nothing to mount
	assert.Equal(t, []string{"before clone", "after clone", "before program set", "after program set",
		"before space", "after space", "before flush", "after flush"}, points)
}

func TestSnapshotInTheSameTxgIsRetried(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^program", Out: `{"return":{"errno":11,"op":"snapshot","name":"POOL/a@x"}}`})
	err := f.client(true).Apply(t.Context(), Snapshot(f.pool+"/a@x"))
	assert.ErrorIs(t, err, ErrBusy)
	assert.Len(t, f.calls(t), sameTxgAttempts)
	f = newFake(t, result{Match: "^program", Out: `{"return":{"errno":11,"op":"set","name":"POOL/a"}}`})
	err = f.client(true).Apply(t.Context(), Set(f.pool+"/a", "a:b", "c"))
	assert.ErrorIs(t, err, ErrSuspended)
	assert.Len(t, f.calls(t), 1)
}

func TestDestroyForeignReturnsTheFirstError(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "/busy$", Out: `{"return":{"errno":16,"name":"POOL/busy@hourly"}}`},
		result{Match: "^program", Out: `{"return":{"errno":0,"name":""}}`})
	c := f.client(true)
	require.NoError(t, c.DestroyForeign(t.Context(), "x", f.pool+"/a"))
	err := c.DestroyForeign(t.Context(), "x", f.pool+"/busy")
	assertKind(t, ErrBusy, err)
	assert.ErrorContains(t, err, "busy@hourly")
	f.calls(t)
	for _, bad := range []string{"bad name", f.pool + "/a@x", "elsewhere/a", ""} {
		assertKind(t, ErrInvalid, c.DestroyForeign(t.Context(), "x", bad))
	}
	assertKind(t, ErrInvalid, c.DestroyForeign(t.Context(), "", f.pool+"/a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, c.DestroyForeign(ctx, "x", f.pool+"/a"), context.Canceled)
	assert.Empty(t, f.calls(t))
}
