package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

// elsewhere is a containerd that can be started in namespaces of its own, more than once.
type elsewhere struct {
	*containerd
	config string
}

func newElsewhere(t *testing.T, d *harness.Daemon) *elsewhere {
	t.Helper()
	c, version := newContainerd(t, d)
	config := fmt.Sprintf("version = %d\nroot = %q\nstate = %q\n%s[grpc]\n  address = %q\n%s",
		version, filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"), withoutCRI, c.address, containerdConfig(t, d, version))
	return &elsewhere{c, c.writeConfig(t, config)}
}

// isolation is the namespaces that a containerd is started in: new ones, after the shell's
// commands.
type isolation struct {
	flags  uintptr
	before string
}

var (
	privateMounts    = isolation{syscall.CLONE_NEWNS, "mount --make-rprivate /; "}
	slaveMounts      = isolation{syscall.CLONE_NEWNS, "mount --make-rslave /; "}
	ownPIDs          = isolation{syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, "mount --make-rprivate /; mount -t proc proc /proc; "}
	daemonNamespaces = isolation{}
)

// serve runs containerd until t ends and returns its PID.
func (e *elsewhere) serve(t *testing.T, in isolation) int {
	t.Helper()
	cmd := exec.Command("sh", "-ec", in.before+"exec containerd --config "+e.config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: in.flags}
	serveReady(t, cmd, e.log, e.dir)
	return cmd.Process.Pid
}

// mountsSeenBy returns the lines of a process's mount table that name a runtime.
func mountsSeenBy(t *testing.T, pid int, base *testpool.Base) (lines []string) {
	t.Helper()
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, " "+base.Runtime()+"/") {
			lines = append(lines, line)
		}
	}
	return lines
}

// heldMounts returns how many mounts the daemon holds.
func heldMounts(t *testing.T, d *harness.Daemon) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(d.Address), "mnt"))
	require.NoError(t, err)
	return len(entries)
}

const (
	callerElsewhere = "caller is in another mount namespace"
	userLayers      = 2
)

// A containerd in a mount namespace of its own, as in a container, does not see the
// daemon's mounts. It mounts datasets itself, and nothing stays mounted or in the pool.
// A PID namespace of its own makes no difference.
func TestContainerdInNamespacesOfItsOwnWorks(t *testing.T) {
	for name, in := range map[string]isolation{"private mounts": privateMounts, "slave mounts": slaveMounts, "mounts and PIDs": ownPIDs} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name == "slave mounts" {
				t.Skip("'make test-long' runs it; the short form has slave mounts in the tests below")
			}
			base := pool.NewBase(t)
			d := harness.StartDaemon(t, base)
			e := newElsewhere(t, d)
			pid := e.serve(t, in)
			_, ref := serveImage(t, writeUserImage(t))
			e.pull(t, "default", ref)
			assert.Equal(t, userLayers, strings.Count(d.Log.String(), "applied layer"), "the differ unpacks what is pulled:\n%s", d.Log)
			e.ctr(t, "run", "--detach", "--user", "web", "--snapshotter", "zfstpl", ref, "waits", "/app", "wait")
			assert.Contains(t, e.mountsOf(t, "waits"), "mount -t zfs "+base.Runtime()+"/")
			assert.Empty(t, mountsSeenBy(t, os.Getpid(), base), "the daemon's namespace")
			assert.NotEmpty(t, mountsSeenBy(t, pid, base), "containerd's namespace")
			assert.Equal(t, 1, strings.Count(d.Log.String(), callerElsewhere), "%s", d.Log)

			d.Kill(t)
			d.Start(t)
			exec := func(id string, args ...string) []string {
				return append([]string{"tasks", "exec", "--exec-id", id, "--user"}, args...)
			}
			e.ctr(t, exec("root", "0:0", "waits", "/app", "write", "/written", "yes")...)
			assert.Equal(t, "33:34\n", e.ctr(t, exec("number", "33:34", "waits", "/app", "id")...))
			assert.Contains(t, e.refused(t, exec("name", "web", "waits", "/app", "id")...), "device or resource busy", "as documented")
			desc, _ := e.commit(t, "waits")
			assert.NotZero(t, desc.Size)
			assert.Equal(t, 1, strings.Count(d.Log.String(), "created layer"), "by the daemon's differ:\n%s", d.Log)
			e.ctr(t, "snapshots", "--snapshotter", "zfstpl", "commit", "made", "waits")
			kept := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "kept"})
			view, err := e.snapshotter(t, "default").View(t.Context(), "look", "made", kept)
			require.NoError(t, err)
			harness.Mounted(t, view, func(root string) { assert.FileExists(t, filepath.Join(root, "written")) })
			assert.Contains(t, e.ctr(t, "tasks", "ls"), "RUNNING")
			assert.Zero(t, heldMounts(t, d))
			assert.Equal(t, 1, strings.Count(d.Log.String(), callerElsewhere), "%s", d.Log)

			e.removeContainer(t, "waits")
			assert.Empty(t, mountsSeenBy(t, pid, base))
			for _, key := range []string{"look", "made"} {
				e.ctr(t, "snapshots", "--snapshotter", "zfstpl", "rm", key)
			}
			e.ctr(t, "images", "delete", "--sync", ref)
			d.Clean(t)
			assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
		})
	}
}

// mountsOf returns the command that mounts a container's root.
func (e *elsewhere) mountsOf(t *testing.T, id string) string {
	t.Helper()
	return e.ctr(t, "snapshots", "--snapshotter", "zfstpl", "mounts", "/target", id)
}

func (e *elsewhere) removeContainer(t *testing.T, id string) {
	t.Helper()
	e.ctr(t, "tasks", "kill", "--signal", "SIGKILL", id)
	e.ctr(t, "tasks", "delete", "--force", id)
	e.ctr(t, "containers", "delete", id)
}

// A second containerd has the same PID as the one at containerd_address, each in a PID
// namespace of its own.
func TestASecondContainerdInAPIDNamespaceIsRefused(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	first := newElsewhere(t, d)
	first.serve(t, ownPIDs)
	first.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeUserImage(t))
	before := d.RecordNames(t)
	require.NotEmpty(t, before)

	second := newSecondContainerd(t, d)
	pid := second.serve(t, ownPIDs)
	said := second.refused(t, "snapshots", "--snapshotter", "zfstpl", "prepare", "probe")
	assert.Contains(t, said, fmt.Sprintf("process %d (containerd) may not use the snapshots of %s", pid, base))
	assert.Contains(t, said, "process 1 of PID namespace ")
	second.collect(t, "default")
	assert.Equal(t, before, d.RecordNames(t))
	first.ctr(t, "images", "delete", "--sync", userImage)
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

// The setting forces binds on a containerd in another mount namespace. If the held mounts
// do not propagate to it, the call fails with the reason, and containerd does not bind an
// empty directory.
func TestForcedBindInAnotherMountNamespaceFails(t *testing.T) {
	for name, c := range map[string]struct {
		in      isolation
		visible bool
	}{
		"private mounts": {privateMounts, false},
		"slave mounts":   {slaveMounts, true},
	} {
		t.Run(name, func(t *testing.T) {
			onlyOnce(t, c.visible, aCase)
			base := pool.NewBase(t)
			d := harness.StartDaemon(t, base, "--mounts", "bind")
			e := newElsewhere(t, d)
			pid := e.serve(t, c.in)
			archive := writeUserImage(t)
			if !c.visible {
				said := e.refused(t, "snapshots", "--snapshotter", "zfstpl", "prepare", "probe")
				assert.Contains(t, said, "is not visible in the caller's mount namespace")
				assert.Contains(t, said, "mounts = \"auto\"")
				e.refused(t, "images", "import", "--snapshotter", "zfstpl", archive)
				d.Clean(t)
				assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
				assert.Zero(t, heldMounts(t, d))
				d.Stop(t)
				d.Cmd.Args = append(d.Cmd.Args, "--mounts", "auto")
				d.Start(t)
			}
			e.ctr(t, "images", "import", "--snapshotter", "zfstpl", archive)
			e.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", userImage, "waits", "/app", "wait")
			if c.visible {
				assert.Equal(t, "33:34\n", e.ctr(t, "tasks", "exec", "--exec-id", "name", "--user", "web", "waits", "/app", "id"))
			}
			assert.Contains(t, e.mountsOf(t, "waits"), map[bool]string{true: "mount -t bind ", false: "mount -t zfs "}[c.visible])
			e.removeContainer(t, "waits")
			e.ctr(t, "images", "delete", "--sync", userImage)
			d.Clean(t)
			assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
			assert.Zero(t, heldMounts(t, d))
			assert.Empty(t, mountsSeenBy(t, pid, base))
		})
	}
}

// A containerd in another mount namespace mounts datasets itself. It gets no ready runtime, which
// the daemon has mounted: ZFS could refuse the mount.
func TestContainerdElsewhereGetsNoReadyRuntime(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	e := newElsewhere(t, d)
	pid := e.serve(t, privateMounts)
	e.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeUserImage(t))
	for _, id := range []string{"first", "second"} {
		e.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", userImage, id, "/app", "wait")
		assert.Contains(t, e.mountsOf(t, id), "mount -t zfs "+base.Runtime()+"/")
	}
	for _, dataset := range base.List(t) {
		assert.False(t, base.IsReadyName(dataset.Name), dataset.Name)
	}
	for _, id := range []string{"first", "second"} {
		e.removeContainer(t, id)
	}
	e.ctr(t, "images", "delete", "--sync", userImage)
	d.Clean(t)
	assert.Len(t, base.List(t), 4)
	assert.Zero(t, heldMounts(t, d))
	assert.Empty(t, mountsSeenBy(t, pid, base))
}

// countReady returns the number of runtimes that were made in advance and have no record.
func countReady(t testing.TB, base *testpool.Base) (n int) {
	t.Helper()
	for _, e := range base.Inspect(t) {
		if base.IsReadyName(e.Dataset) && len(e.Records) == 0 {
			n++
		}
	}
	return n
}

// A containerd moves to the daemon's mount namespace and back. Mounts returns the form for
// the namespace of the moment, and a running container keeps its root. With binds a program
// can be started in it by the name of a user.
func TestContainerdMayChangeItsMountNamespace(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--ready-runtimes=0") // mounts are counted
	e := newElsewhere(t, d)
	t.Run("elsewhere", func(t *testing.T) {
		e.serve(t, slaveMounts)
		e.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeUserImage(t))
		e.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", userImage, "old", "/app", "wait")
		e.ctr(t, "tasks", "exec", "--exec-id", "writes", "old", "/app", "write", "/written", "yes")
		assert.Contains(t, e.mountsOf(t, "old"), "mount -t zfs ")
		assert.Zero(t, heldMounts(t, d))
	})
	t.Run("here", func(t *testing.T) {
		e.serve(t, daemonNamespaces)
		assert.Contains(t, e.mountsOf(t, "old"), "mount -t bind ")
		e.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", userImage, "new", "/app", "wait")
		for _, id := range []string{"old", "new"} {
			assert.Equal(t, "33:34\n", e.ctr(t, "tasks", "exec", "--exec-id", "name", "--user", "web", id, "/app", "id"), id)
		}
		assert.Contains(t, e.ctr(t, "tasks", "exec", "--exec-id", "lists", "old", "/app", "ls"), "/written\n")
		assert.Equal(t, 2, heldMounts(t, d))
		assert.Equal(t, 1, strings.Count(d.Log.String(), callerElsewhere))
		e.removeContainer(t, "old")
		e.collect(t, "default")
		d.Clean(t)
		assert.Equal(t, 1, heldMounts(t, d))
	})
	t.Run("and back", func(t *testing.T) {
		pid := e.serve(t, slaveMounts)
		assert.Contains(t, e.mountsOf(t, "new"), "mount -t zfs ")
		assert.Zero(t, heldMounts(t, d))
		assert.Equal(t, "33:34\n", e.ctr(t, "tasks", "exec", "--exec-id", "number", "--user", "33:34", "new", "/app", "id"))
		e.removeContainer(t, "new")
		e.ctr(t, "images", "delete", "--sync", userImage)
		d.Clean(t)
		assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
		assert.Empty(t, mountsSeenBy(t, pid, base))
		assert.Equal(t, 2, strings.Count(d.Log.String(), callerElsewhere))
	})
}
