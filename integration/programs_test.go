package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// trap is a directory of programs that write down that they were called before they
// do what they are called for.
type trap struct{ dir, book string }

func newTrap(t *testing.T) trap {
	t.Helper()
	dir := t.TempDir()
	p := trap{dir, filepath.Join(dir, "called")}
	for _, name := range []string{"zfs", "zpool", "mount", "umount", "sh"} {
		real, err := exec.LookPath(name)
		require.NoError(t, err)
		script := fmt.Sprintf("#!/bin/bash\necho \"%s $*\" >>%s\nPATH=%s exec %s \"$@\"\n", name, p.book, os.Getenv("PATH"), real)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	return p
}

// called returns what was, since it was asked last.
func (p trap) called(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(p.book)
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	require.NoError(t, err)
	require.NoError(t, os.Remove(p.book))
	return string(text)
}

// With the native client a daemon runs no program once it is ready, whatever
// containerd asks of it: not for a snapshot's whole life, not to clean up behind it.
// With the other one it does, so that the trap is known to be one.
func TestTheNativeClientRunsNoProgram(t *testing.T) {
	t.Parallel()
	for _, client := range testpool.Clients() {
		t.Run(string(client), func(t *testing.T) {
			t.Parallel()
			p := newTrap(t)
			d := harness.NewDaemon(t, pool.NewBaseWith(t, client))
			d.Env = []string{"PATH=" + p.dir}
			d.Start(t)
			t.Cleanup(func() { d.Stop(t) })
			t.Logf("at its start:\n%s", p.called(t))
			life(t, d.Snapshotter(t))
			if client == zfs.Native {
				assert.Empty(t, p.called(t))
			} else {
				assert.Contains(t, p.called(t), "zfs program")
			}
		})
	}
}

// life calls everything that containerd calls.
func life(t *testing.T, sn snapshots.Snapshotter) {
	t.Helper()
	ctx := context.Background()
	mounts, err := sn.Prepare(ctx, "extract", "")
	require.NoError(t, err)
	require.NoError(t, mount.WithTempMount(ctx, mounts, func(root string) error { return harness.Touch(root, "file") }))
	require.NoError(t, sn.Commit(ctx, "image", "extract"))
	_, err = sn.View(ctx, "view", "image")
	require.NoError(t, err)
	_, err = sn.Prepare(ctx, "container", "image")
	require.NoError(t, err)
	_, err = sn.Mounts(ctx, "container")
	require.NoError(t, err)
	info, err := sn.Stat(ctx, "container")
	require.NoError(t, err)
	info.Labels = map[string]string{"containerd.io/gc.root": "yes"}
	_, err = sn.Update(ctx, info)
	require.NoError(t, err)
	require.NoError(t, sn.Walk(ctx, func(ctx context.Context, i snapshots.Info) error {
		_, err := sn.Usage(ctx, i.Name)
		return err
	}))
	for _, key := range []string{"container", "view", "image"} {
		require.NoError(t, sn.Remove(ctx, key))
	}
	require.NoError(t, sn.(snapshots.Cleaner).Cleanup(ctx))
}
