package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testimage"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/integration/tied"
)

// heldAt returns the mount ID of the mount at a path.
func heldAt(t testing.TB, path string) int {
	t.Helper()
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(path))
	require.NoError(t, err)
	require.Len(t, found, 1, "%s is mounted, once", path)
	return found[0].ID
}

func readOnly(mounts []mount.Mount) []mount.Mount {
	m := mounts[0]
	m.Options = append(append([]string{}, m.Options...), "ro")
	return []mount.Mount{m}
}

// Several clients mount an active snapshot at the same time, one of them read-only,
// and mount and unmount it in each other's way: what BuildKit does with a cache
// mount, and containerd to look a user up.
func TestAnyNumberOfClientsMountAnActiveSnapshot(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	mounts, err := d.Snapshotter(t).Prepare(ctx, "web", "")
	require.NoError(t, err)
	require.Equal(t, "bind", mounts[0].Type)
	harness.Mounted(t, mounts, func(root string) {
		require.NoError(t, harness.Touch(root, "written"))
		harness.Mounted(t, readOnly(mounts), func(other string) {
			assert.FileExists(t, filepath.Join(other, "written"))
			assert.ErrorIs(t, harness.Touch(other, "refused"), unix.EROFS)
			require.NoError(t, harness.Touch(root, "written-beside-it"))
		})
	})
	var wg sync.WaitGroup
	for i := range 4 {
		dir := t.TempDir()
		how := mounts
		if i%2 == 1 {
			how = readOnly(mounts)
		}
		wg.Go(func() {
			for range 50 {
				if !assert.NoError(t, mount.All(how, dir)) || !assert.NoError(t, mount.UnmountAll(dir, 0)) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// The mount outlives a daemon that is killed or stopped, is mounted anew where it is
// gone, is never something else than the snapshot, and goes with it.
func TestAHeldMountIsTheSnapshotOrNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	mounts, err := d.Snapshotter(t).Prepare(ctx, "web", "")
	require.NoError(t, err)
	path := mounts[0].Source
	assert.Equal(t, filepath.Join(filepath.Dir(d.Address), "mnt"), filepath.Dir(path))
	require.NoError(t, harness.Touch(path, "kept"))
	id := heldAt(t, path)
	again := func() []mount.Mount {
		t.Helper()
		found, err := d.Snapshotter(t).Mounts(ctx, "web")
		require.NoError(t, err)
		assert.FileExists(t, filepath.Join(path, "kept"))
		return found
	}

	d.Kill(t)
	d.Start(t)
	assert.Equal(t, mounts, again())
	assert.Equal(t, id, heldAt(t, path), "found again behind a crash")
	d.Stop(t)
	assert.Equal(t, id, heldAt(t, path), "it stays when the daemon is stopped")
	d.Start(t)
	assert.Equal(t, mounts, again())

	require.NoError(t, unix.Unmount(path, 0)) // by hand; a reboot does no more
	assert.Equal(t, mounts, again(), "mounted anew")

	require.NoError(t, unix.Mount("foreign", path, "tmpfs", 0, ""))
	_, err = d.Snapshotter(t).Mounts(ctx, "web")
	require.True(t, errdefs.IsFailedPrecondition(err), "%v", err)
	assert.ErrorContains(t, err, "umount "+path)
	require.NoError(t, unix.Unmount(path, 0))
	assert.Equal(t, mounts, again())

	require.NoError(t, d.Snapshotter(t).Remove(ctx, "web"))
	require.NoError(t, d.Snapshotter(t).Cleanup(ctx))
	assert.NoDirExists(t, path)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

// What a client mounts in its bind appears nowhere else, and what the daemon unmounts
// goes in other mount namespaces too.
func TestHeldMountsPropagateUnmountsOnly(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	run := t.TempDir()
	require.NoError(t, unix.Mount("run", run, "tmpfs", 0, "mode=0700"))
	require.NoError(t, unix.Mount("", run, "", unix.MS_SHARED, "")) // as systemd has /run
	t.Cleanup(func() { require.NoError(t, unix.Unmount(run, unix.MNT_DETACH)) })
	d := harness.NewDaemon(t, base)
	d.Address = filepath.Join(run, "zfstpl.sock")
	d.Cmd.Args = append(d.Cmd.Args, "--address", d.Address)
	t.Cleanup(func() { require.NoError(t, testpool.Unmount(d.Address)) })
	d.Start(t)
	t.Cleanup(func() { d.Stop(t) })
	sn := d.Snapshotter(t)
	mounts, err := sn.Prepare(ctx, "web", "")
	require.NoError(t, err)
	harness.Mounted(t, mounts, func(root string) {
		require.NoError(t, os.Mkdir(filepath.Join(root, "proc"), 0o700))
		require.NoError(t, unix.Mount("proc", filepath.Join(root, "proc"), "proc", 0, ""))
		assert.NoFileExists(t, filepath.Join(mounts[0].Source, "proc", "uptime"))
		require.NoError(t, unix.Unmount(filepath.Join(root, "proc"), 0))
	})

	// A service with a mount namespace of its own, such as one with PrivateTmp.
	other := exec.Command("unshare", "--mount", "--propagation", "slave", "sleep", "infinity")
	require.NoError(t, tied.Start(other))
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	eventually(t, "it has its namespace", func() bool {
		comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(other.Process.Pid), "comm"))
		return err == nil && strings.TrimSpace(string(comm)) == "sleep"
	})
	table, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(other.Process.Pid), "mountinfo"))
	require.NoError(t, err)
	require.Contains(t, string(table), mounts[0].Source)
	require.NoError(t, sn.Remove(ctx, "web"))
	require.NoError(t, sn.Cleanup(ctx))
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t), "nothing keeps it")
}

// A client writes through the path of the held mount itself, as BuildKit does. The
// snapshot is removed meanwhile: the client goes on, and the dataset goes when the
// client is done.
func TestARemovedSnapshotGoesWithTheLastUserOfItsHeldMount(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	sn := d.Snapshotter(t)
	mounts, err := sn.Prepare(ctx, "web", "")
	require.NoError(t, err)
	runtime := strings.TrimPrefix(base.Source(t, mounts), base.String())
	file, err := os.Create(filepath.Join(mounts[0].Source, "open"))
	require.NoError(t, err)
	defer file.Close()

	require.NoError(t, sn.Remove(ctx, "web"))
	require.NoError(t, sn.Cleanup(ctx), "busy is no error")
	assert.Contains(t, base.Names(t), runtime)
	_, err = file.WriteString("still written")
	require.NoError(t, err)
	says := fmt.Sprintf("(pid %d): open ", os.Getpid())
	eventually(t, "the log names the user", func() bool { return strings.Contains(d.Log.String(), says) })
	assert.NoDirExists(t, mounts[0].Source, "nothing begins to use it any more")
	require.NoError(t, file.Close())
	eventually(t, "the runtime goes by itself", func() bool { return !strings.Contains(strings.Join(base.Names(t), " "), runtime) })
}

const userImage = "docker.io/library/zfstpl-users:latest"

// writeUserImage makes an image with users.
func writeUserImage(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.tar")
	require.NoError(t, testimage.Write(path, userImage, harness.Binary(t, "app"), []testimage.File{
		{Name: "etc/passwd", Content: []byte("root:x:0:0::/:/\nweb:x:33:34::/:/\n")},
		{Name: "etc/group", Content: []byte("root:x:0:\nweb:x:34:\nmore:x:35:web\n")},
	}))
	return path
}

// A program is started in a running container as a user by name: containerd looks the
// name up in the container's own file system. Before the upgrade the container's root
// was mounted from the dataset; behind it, and where the setting is changed while
// containers run, both kinds go on.
func TestExecByUserNameWorksWithBothFormsOfMounts(t *testing.T) {
	onlyOnce(t, olderReleases, aCase)
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--mounts", "zfs")
	c := startContainerd(t, d)
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeUserImage(t))
	run := func(id string) { c.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", userImage, id, "/app", "wait") }
	exec := func(id, user string) string {
		return c.ctr(t, "tasks", "exec", "--exec-id", id+"-"+strings.ReplaceAll(user, ":", "-"), "--user", user, id, "/app", "id")
	}
	restart := func(form string) {
		d.Stop(t)
		d.Cmd.Args = append(d.Cmd.Args, "--mounts", form)
		d.Start(t)
	}
	end := func(id string) {
		c.ctr(t, "tasks", "kill", "--signal", "SIGKILL", id)
		c.ctr(t, "tasks", "delete", "--force", id)
		c.ctr(t, "containers", "delete", id)
	}
	run("direct")
	restart("auto")
	run("bound")
	for _, id := range []string{"direct", "bound"} {
		assert.Equal(t, "33:34\n", exec(id, "web"), "%s: by name", id)
		assert.Equal(t, "33:34\n", exec(id, "33"), "%s: by number", id)
		assert.Equal(t, "33:0\n", exec(id, "33:0"), "%s: both numbers", id)
	}
	restart("zfs")
	run("later")
	end("direct")
	run("direct")
	restart("bind")
	for _, id := range []string{"direct", "bound", "later"} {
		assert.Equal(t, "34\n", strings.TrimPrefix(exec(id, "web:34"), "33:"), id)
		end(id)
	}
	c.ctr(t, "images", "delete", "--sync", userImage)
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}
