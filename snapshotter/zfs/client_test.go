package zfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOpenProbesWhetherProgramsClone(t *testing.T) {
	t.Parallel()
	for out, clones := range map[string]bool{`{"return":{"clone":true}}`: true, `{"return":{"clone":false}}`: false, `{"return":{}}`: false} {
		f := newFake(t, result{Match: "^program", Out: out})
		c, err := Open(t.Context(), f.pool, "zfstpl:", Auto)
		require.NoError(t, err)
		assert.Equal(t, clones, c.clones, out)
		assert.Contains(t, f.calls(t)[0].Args, "-n", "the probe waits for no txg")
	}
}

func TestOpenReturnsErrorsWithKinds(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^program", Status: 1, Err: "cannot open 'x': no such pool\n"})
	_, err := Open(t.Context(), f.pool, "zfstpl:", Auto)
	assertKind(t, ErrNotFound, err)
	f.calls(t)
	for _, bad := range []string{"", "-n", f.pool + "//a", f.pool + "@x", "a b"} {
		_, err := Open(t.Context(), bad, "zfstpl:", Auto)
		assertKind(t, ErrInvalid, err)
	}
	f = newFake(t, result{Match: "^program", Status: 1, Err: "The ZFS modules cannot be auto-loaded.\nTry running 'modprobe zfs' as root to manually load them.\n"})
	_, err = Open(t.Context(), f.pool, "zfstpl:", Auto)
	assertKind(t, ErrUnavailable, err)
	f = newFake(t, result{Match: "^program", Out: "what"})
	_, err = Open(t.Context(), f.pool, "zfstpl:", Auto)
	assert.Error(t, err)
}

func TestCreateSetsPropertiesAndMountsNothing(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "/exists$", Status: 1, Err: "cannot create 'x': dataset already exists\n"}, result{Match: "^create|^mount"})
	c := f.client(true)
	require.NoError(t, c.Create(t.Context(), f.pool+"/a", map[string]string{"mountpoint": "/a b", "a:b": "-x", "atime": "off"}))
	require.NoError(t, c.Create(t.Context(), f.pool+"/b", nil))
	require.NoError(t, c.Mount(t.Context(), f.pool+"/b"))
	calls := f.calls(t)
	require.Len(t, calls, 3)
	assert.Equal(t, []string{"create", "-u", "-o", "a:b=-x", "-o", "atime=off", "-o", "mountpoint=/a b", f.pool + "/a"}, calls[0].Args)
	assert.Equal(t, []string{"create", "-u", f.pool + "/b"}, calls[1].Args)
	assert.Equal(t, []string{"mount", f.pool + "/b"}, calls[2].Args)
	assertKind(t, ErrExists, c.Create(t.Context(), f.pool+"/exists", nil))
}

// No method passes an invalid name to a command.
func TestInvalidNamesReachNoCommand(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "."})
	c := f.client(true)
	ctx := t.Context()
	for _, name := range badNames {
		if strings.HasPrefix(name, "pool") {
			continue
		}
		for what, err := range map[string]error{
			"create": c.Create(ctx, name, nil), "mount": c.Mount(ctx, name), "flush": c.Flush(ctx, name),
			"list": second(c.List(ctx, name)), "used": second(c.Space(ctx, name)), "objects": second(c.Objects(ctx, name)),
			"objects of a snapshot": second(c.Objects(ctx, name+"@x")),
		} {
			assert.ErrorIs(t, err, ErrInvalid, "%s %q", what, name)
		}
	}
	assert.Empty(t, f.calls(t))
}

func second[T any](_ T, err error) error { return err }

// Without ZFS, or with a name that does not exist, the mount fails, and the error
// names the dataset.
func TestMountErrorsNameTheDataset(t *testing.T) {
	t.Parallel()
	c := &Client{pool: "nosuchpool", driver: &commands{pool: "nosuchpool"}}
	assert.ErrorContains(t, c.Flush(t.Context(), "nosuchpool/a"), "nosuchpool/a")
	assert.ErrorContains(t, second(c.Objects(t.Context(), "nosuchpool/a@x")), "nosuchpool/a@x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, c.Flush(ctx, "nosuchpool/a"), context.Canceled)
	assert.ErrorIs(t, second(c.Objects(ctx, "nosuchpool/a")), context.Canceled)
}

// A command outlives a daemon that is killed, and keeps the daemon's lock until it
// ends. So does the command of a watched client, as in the crash tests.
func TestCommandsHoldTheLock(t *testing.T) {
	t.Parallel()
	for _, watched := range []bool{false, true} {
		t.Run(fmt.Sprintf("watched %t", watched), func(t *testing.T) {
			t.Parallel()
			f := newFake(t, result{Match: "^program.*-n", Out: `{"return":{"POOL":{"props":{}}}}`}, done,
				result{Match: "^clone|^create|^mount"}, result{Match: "^list"})
			file, err := os.Create(filepath.Join(t.TempDir(), "lock"))
			require.NoError(t, err)
			defer file.Close()
			c := f.client(false)
			if watched {
				c.Watch(func(string) {})
			}
			c.Hold(file)
			ctx := t.Context()
			require.NoError(t, c.Apply(ctx, commitOf(f.pool)...))
			require.NoError(t, c.Create(ctx, f.pool+"/a", nil))
			require.NoError(t, c.Mount(ctx, f.pool+"/a"))
			require.NoError(t, second(c.Destroy(ctx, "x", []string{f.pool + "/a"})))
			require.NoError(t, c.DestroySnapshot(ctx, f.pool+"/a@x"))
			require.NoError(t, second(c.List(ctx, f.pool)))
			calls := f.calls(t)
			assert.NotEmpty(t, calls)
			for _, call := range calls {
				assert.Equal(t, file.Name(), call.Held, "%q", call.Args)
			}
		})
	}
}
