package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/plugin"
)

const (
	mapping     = "0:100000:65536"
	mappedRoot  = 100000
	overflowUID = 65534 // what an ID that is not mapped is shown as
)

func withMapping() snapshots.Opt {
	return snapshots.WithLabels(map[string]string{
		snapshots.LabelSnapshotUIDMapping: mapping, snapshots.LabelSnapshotGIDMapping: mapping,
	})
}

// owner returns the user and the group of a file as this process sees them.
func owner(t testing.TB, path string) string {
	t.Helper()
	var st syscall.Stat_t
	require.NoError(t, syscall.Lstat(path, &st), path)
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

func owners(uid int) string { return fmt.Sprintf("%d:%d", uid, uid) }

// plain is a mount of the same dataset without a mapping.
func plain(mounts []mount.Mount) []mount.Mount {
	m := mounts[0]
	m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return strings.HasPrefix(o, "uidmap=") || strings.HasPrefix(o, "gidmap=") })
	return []mount.Mount{m}
}

// The kernel maps the mount: what root owns on disk, the container's root owns,
// in an image of several megabytes as in an empty one, and no file is changed.
func TestIDMappedMountChangesNoFile(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base)
	mounts, err := sn.Prepare(ctx, "making", "")
	require.NoError(t, err)
	harness.Mounted(t, mounts, func(root string) {
		require.NoError(t, harness.Touch(root, "of-root"))
		require.NoError(t, harness.Touch(root, "of-1000"))
		require.NoError(t, os.Chown(filepath.Join(root, "of-1000"), 1000, 1000))
	})
	require.NoError(t, sn.Commit(ctx, "image", "making"))

	mounts, err = sn.Prepare(ctx, "web", "image", withMapping())
	require.NoError(t, err)
	assert.Equal(t, []string{"uidmap=" + mapping, "gidmap=" + mapping}, mounts[0].Options)
	harness.Mounted(t, mounts, func(root string) {
		assert.Equal(t, owners(mappedRoot), owner(t, root))
		assert.Equal(t, owners(mappedRoot), owner(t, filepath.Join(root, "of-root")))
		assert.Equal(t, owners(mappedRoot+1000), owner(t, filepath.Join(root, "of-1000")))
		assert.ErrorIs(t, harness.Touch(root, "by-the-host"), syscall.EOVERFLOW, "the host's root has no ID there")
	})
	harness.Mounted(t, plain(mounts), func(root string) {
		assert.Equal(t, owners(0), owner(t, root))
		assert.Equal(t, owners(0), owner(t, filepath.Join(root, "of-root")))
		assert.Equal(t, owners(1000), owner(t, filepath.Join(root, "of-1000")))
	})
	view, err := sn.View(ctx, "look", "image", withMapping())
	require.NoError(t, err)
	harness.Mounted(t, view, func(root string) {
		assert.Equal(t, owners(mappedRoot), owner(t, filepath.Join(root, "of-root")))
		err := os.Remove(filepath.Join(root, "of-root"))
		assert.True(t, errors.Is(err, syscall.EROFS), "%v", err)
	})
}

// An empty snapshot's root directory is root's on disk, and so the container's
// root's. To change its owner to the mapped one, as overlayfs must do for the
// directory it writes to, would make it unowned.
func TestIDMappedEmptySnapshotBelongsToItsRoot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	sn := harness.NewSnapshotter(t, base)
	mounts, err := sn.Prepare(ctx, "empty", "", withMapping())
	require.NoError(t, err)
	harness.Mounted(t, mounts, func(root string) { assert.Equal(t, owners(mappedRoot), owner(t, root)) })

	harness.Mounted(t, plain(mounts), func(root string) { require.NoError(t, os.Chown(root, mappedRoot, mappedRoot)) })
	harness.Mounted(t, mounts, func(root string) { assert.Equal(t, owners(overflowUID), owner(t, root)) })
}

// containerd17 reports whether the containerd in PATH is a 1.7. It maps no mounts of
// type zfs, and its ctr pulls and imports without asking for layers.
func containerd17(t testing.TB) bool {
	t.Helper()
	version, err := exec.Command("containerd", "--version").Output()
	require.NoError(t, err)
	return plugin.ContainerdIsOld(string(version))
}

// A container in a user namespace starts on the image as it is: nothing was
// copied and no owner was changed for it, and what its root writes is root's. A
// containerd 1.7 changes the owners in a copy; there too all is its root's.
func TestContainerInAUserNamespace(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	c := startContainerd(t, d)
	reachable(t, c.dir)
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeTestImage(t))
	before := len(d.RecordNames(t))
	run := func(id string, more ...string) {
		args := []string{"run", "--detach", "--snapshotter", "zfstpl", "--uidmap", mapping, "--gidmap", mapping, "--remap-labels", testImage, id}
		c.ctr(t, append(args, more...)...)
	}
	defer func() {
		for _, id := range []string{"waits", "writes"} {
			c.ctr(t, "tasks", "delete", "--force", id)
			c.ctr(t, "containers", "delete", id)
		}
		c.ctr(t, "images", "delete", "--sync", testImage)
	}()

	run("waits", "/app", "wait")
	root := fmt.Sprintf("/proc/%d/root", taskPID(t, c, "waits"))
	assert.Equal(t, owners(mappedRoot), owner(t, root+"/app"), "root's in the namespace of the container")
	assert.Equal(t, owners(mappedRoot), owner(t, root+"/data/kept"))

	run("writes", "/app", "write", "/data/new", "new")
	eventually(t, "the container has written", func() bool { return strings.Contains(c.ctr(t, "tasks", "ls"), "STOPPED") })
	found := d.RecordNames(t)
	onDisk, snapshots := 0, before+2
	if containerd17(t) {
		onDisk, snapshots = mappedRoot, before+3
	}
	assert.Len(t, found, snapshots, "one snapshot a container, and none that was remapped: %v", found)
	mounts, err := c.snapshotter(t, "default").Mounts(context.Background(), "writes")
	require.NoError(t, err)
	harness.Mounted(t, plain(mounts), func(root string) {
		assert.Equal(t, owners(onDisk), owner(t, filepath.Join(root, "data/new")))
		assert.Equal(t, owners(onDisk), owner(t, filepath.Join(root, "data/kept")))
	})
}

// reachable opens the directories that a container's root, which has no name here,
// passes on the way to its root file system.
func reachable(t testing.TB, dir string) {
	t.Helper()
	for _, d := range []string{dir, filepath.Join(dir, "state"), filepath.Join(dir, "root")} {
		require.NoError(t, os.Chmod(d, 0o711))
	}
}

// taskPID is the process of a container.
func taskPID(t testing.TB, c *containerd, id string) int {
	t.Helper()
	for line := range strings.Lines(c.ctr(t, "tasks", "ls")) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == id {
			pid, err := strconv.Atoi(words[1])
			require.NoError(t, err)
			return pid
		}
	}
	require.Fail(t, "there is no task "+id)
	return 0
}
