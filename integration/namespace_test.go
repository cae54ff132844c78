package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// elsewhere is a containerd that can be started in namespaces of its own, more than once.
type elsewhere struct {
	*containerd
	config string
}

func newElsewhere(t *testing.T, d *daemon) *elsewhere {
	t.Helper()
	c, version := newContainerd(t, d)
	config := fmt.Sprintf("version = %d\nroot = %q\nstate = %q\n%s[grpc]\n  address = %q\n%s",
		version, filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"), withoutCRI, c.address, d.containerdConfig(t, version))
	e := &elsewhere{c, filepath.Join(c.dir, "config.toml")}
	require.NoError(t, os.WriteFile(e.config, []byte(config), 0o600))
	return e
}

// serve runs containerd until t ends, in new namespaces, after the shell's commands.
func (e *elsewhere) serve(t *testing.T, namespaces uintptr, before string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", before+"exec containerd --config "+e.config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	serveReady(t, cmd, e.log, e.dir)
}

// heldMounts returns how many mounts the daemon holds.
func (d *daemon) heldMounts(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(d.address), "mnt"))
	require.NoError(t, err)
	return len(entries)
}

const callerElsewhere = "the caller is in another mount namespace"

// A containerd in a mount namespace of its own, as in a container, does not see the
// daemon's mounts. It mounts datasets itself, and nothing stays mounted or in the pool.
// A PID namespace of its own makes no difference.
func TestContainerdInNamespacesOfItsOwn(t *testing.T) {
	const procOfIts = "mount --make-rprivate /; mount -t proc proc /proc; "
	for name, c := range map[string]struct {
		namespaces uintptr
		before     string
	}{
		"private mounts":           {syscall.CLONE_NEWNS, "mount --make-rprivate /; "},
		"mounts that follow":       {syscall.CLONE_NEWNS, "mount --make-rslave /; "},
		"mounts and process table": {syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, procOfIts},
	} {
		t.Run(name, func(t *testing.T) {
			base := pool.NewBase(t)
			d := startDaemon(t, base)
			e := newElsewhere(t, d)
			e.serve(t, c.namespaces, c.before)
			e.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeUserImage(t))
			e.ctr(t, "run", "--detach", "--user", "web", "--snapshotter", "zfstpl", userImage, "waits", "/app", "wait")
			d.stop(t)
			d.start(t)
			assert.Equal(t, "33:34\n", e.ctr(t, "tasks", "exec", "--exec-id", "number", "--user", "33:34", "waits", "/app", "id"))
			assert.NotEmpty(t, e.ctr(t, "snapshots", "--snapshotter", "zfstpl", "diff", "waits"))
			assert.Zero(t, d.heldMounts(t))
			assert.Equal(t, 1, strings.Count(d.log.String(), callerElsewhere), "once for each start:\n%s", d.log)
			e.removeContainer(t, "waits")
			e.ctr(t, "images", "delete", "--sync", userImage)
			d.clean(t)
			assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
		})
	}
}

func (e *elsewhere) removeContainer(t *testing.T, id string) {
	t.Helper()
	e.ctr(t, "tasks", "kill", "--signal", "SIGKILL", id)
	e.ctr(t, "tasks", "delete", "--force", id)
	e.ctr(t, "containers", "delete", id)
}

// A containerd that moves into the daemon's mount namespace is served held mounts from
// then on. A container that runs meanwhile keeps its root, and a program can be started in
// it by the name of a user.
func TestContainerdMovesToTheDaemonsMountNamespace(t *testing.T) {
	base := pool.NewBase(t)
	d := startDaemon(t, base)
	e := newElsewhere(t, d)
	t.Run("elsewhere", func(t *testing.T) {
		e.serve(t, syscall.CLONE_NEWNS, "mount --make-rprivate /; ")
		e.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeUserImage(t))
		e.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", userImage, "old", "/app", "wait")
		assert.Zero(t, d.heldMounts(t))
	})
	t.Run("here", func(t *testing.T) {
		e.serve(t, 0, "")
		e.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", userImage, "new", "/app", "wait")
		for _, id := range []string{"old", "new"} {
			assert.Equal(t, "33:34\n", e.ctr(t, "tasks", "exec", "--exec-id", "name", "--user", "web", id, "/app", "id"), id)
		}
		assert.Equal(t, 2, d.heldMounts(t))
		assert.Equal(t, 1, strings.Count(d.log.String(), callerElsewhere))
		e.removeContainer(t, "old")
		e.removeContainer(t, "new")
		e.ctr(t, "images", "delete", "--sync", userImage)
		d.clean(t)
		assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
		assert.Zero(t, d.heldMounts(t))
	})
}
