package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zfstpl/zfstpl/integration/harness"
)

// A second containerd on the host names the same daemon. To it all that the first one
// has would be garbage: it sees nothing and removes nothing, and gets the reason.
func TestASecondContainerdIsRefused(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	first := startContainerd(t, d)
	first.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeTestImage(t))
	before := d.RecordNames(t)
	require.NotEmpty(t, before)

	second := startSecondContainerd(t, d)
	said := second.refused(t, "snapshots", "--snapshotter", "zfstpl", "prepare", "probe")
	assert.Contains(t, said, "(containerd) may not use the snapshots of "+base.String())
	assert.Contains(t, said, "containerd_address "+d.Containerd())
	second.collect(t, "default")
	assert.Equal(t, before, d.RecordNames(t))
	assert.Equal(t, 1, strings.Count(d.Log.String(), "refused caller"), "once of each process:\n%s", d.Log)

	out := first.ctr(t, "run", "--rm", "--snapshotter", "zfstpl", testImage, "lists", "/app", "ls")
	assert.Contains(t, out, "/data/added\n")
	first.ctr(t, "images", "delete", "--sync", testImage)
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t), "the first one's collection goes on")
}

// startSecondContainerd starts one that serves elsewhere than the daemon's setting says.
func startSecondContainerd(t *testing.T, d *harness.Daemon) *containerd {
	t.Helper()
	c := newSecondContainerd(t, d)
	c.serve(t, daemonNamespaces)
	return c.containerd
}

// newSecondContainerd returns one that is not started.
func newSecondContainerd(t *testing.T, d *harness.Daemon) *elsewhere {
	t.Helper()
	c, version := newContainerd(t, d)
	c.address = filepath.Join(c.dir, "c.sock")
	config := fmt.Sprintf("version = %d\nroot = %q\nstate = %q\n%s[grpc]\n  address = %q\n[ttrpc]\n  address = %q\n%s",
		version, filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"),
		"disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \"io.containerd.internal.v1.opt\"]\n",
		c.address, c.address+".ttrpc", containerdConfig(t, d, version))
	return &elsewhere{c, c.writeConfig(t, config)}
}

// writeConfig writes the configuration of a containerd and returns its path.
func (c *containerd) writeConfig(t testing.TB, config string) string {
	t.Helper()
	path := filepath.Join(c.dir, "config.toml")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	return path
}

// refused runs ctr, which has to fail, and returns what it wrote.
func (c *containerd) refused(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("ctr", append([]string{"--address", c.address}, args...)...).CombinedOutput()
	require.Error(t, err, "ctr %s: %s", strings.Join(args, " "), out)
	return string(out)
}

// Beside containerd no other process uses the snapshots; what is no snapshot's is open
// to all.
func TestOnlyContainerdUsesTheSnapshots(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	c := startContainerd(t, d)
	c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "prepare", "web")
	ctx, sn := t.Context(), d.Snapshotter(t)
	for what, err := range map[string]error{
		"walk":    sn.Walk(ctx, func(context.Context, snapshots.Info) error { return nil }),
		"remove":  sn.Remove(ctx, d.RecordNames(t)[0]),
		"cleanup": sn.Cleanup(ctx),
	} {
		require.ErrorIs(t, err, errdefs.ErrPermissionDenied, what)
		assert.ErrorContains(t, err, fmt.Sprintf("process %d (", os.Getpid()), what)
		assert.ErrorContains(t, err, "(containerd), the containerd that serves", what)
	}
	status, err := grpc_health_v1.NewHealthClient(d.Dial(t)).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, status.Status)
	d.Clean(t)
	c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "rm", "web")
	c.collect(t, "default")
	assert.Empty(t, d.RecordNames(t))
}

// containerd collects garbage before it listens: nothing is removed then, and it starts
// all the same.
func TestNothingIsRemovedBeforeContainerdListens(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	d.EndStandIn()
	ctx, sn := t.Context(), d.Snapshotter(t)
	_, err := sn.Prepare(ctx, "web", "")
	require.NoError(t, err)
	assert.Len(t, harness.Everything(t, sn), 1)
	for what, err := range map[string]error{"remove": sn.Remove(ctx, "web"), "cleanup": sn.Cleanup(ctx)} {
		require.ErrorIs(t, err, errdefs.ErrUnavailable, what)
		assert.ErrorContains(t, err, "containerd_address "+d.Containerd(), what)
	}
	assert.Equal(t, []string{"web"}, d.RecordNames(t))
	c := startContainerd(t, d)
	c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "prepare", "probe")
	c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "rm", "probe")
	c.collect(t, "default")
	eventually(t, "what nothing knows is collected", func() bool { return len(d.RecordNames(t)) == 0 })
}

// containerd's database is lost with all that it knows: the next one is another process
// with another UUID, is served, starts everything at the first try, and collects what the
// old one left.
func TestContainerdWithANewDatabaseStartsEverything(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	run := func(t *testing.T, c *containerd) {
		c.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeTestImage(t))
		c.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", testImage, "job", "/app", "wait")
		c.ctr(t, "tasks", "delete", "--force", "job")
	}
	jobs := func() int {
		return len(slices.DeleteFunc(d.RecordNames(t), func(name string) bool { return !strings.HasSuffix(name, "/job") }))
	}
	t.Run("the old one", func(t *testing.T) { run(t, startContainerd(t, d)) })
	require.Equal(t, 1, jobs())
	t.Run("the new one", func(t *testing.T) {
		c := startContainerd(t, d)
		run(t, c)
		c.ctr(t, "run", "--rm", "--snapshotter", "zfstpl", testImage, "gc", "/app", "ls")
		c.collect(t, "default")
		eventually(t, "the old root is collected", func() bool { return jobs() == 1 })
		c.ctr(t, "containers", "delete", "job")
		c.ctr(t, "images", "delete", "--sync", testImage)
	})
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}
