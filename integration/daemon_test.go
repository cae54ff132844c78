package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zfstpl/zfstpl/integration/harness"
)

func TestDaemonServesHealthOnAPrivateSocket(t *testing.T) {
	t.Parallel()
	d := harness.StartDaemon(t, pool.NewBase(t))
	status, err := grpc_health_v1.NewHealthClient(d.Dial(t)).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, status.GetStatus())

	socket, err := os.Stat(d.Address)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), socket.Mode().Perm())
	dir, err := os.Stat(filepath.Dir(d.Address))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), dir.Mode().Perm())
}

func TestSecondDaemonOnABaseNamesTheFirst(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	first := harness.StartDaemon(t, base)
	second := filepath.Join(filepath.Dir(first.Address), "second.sock")
	_, stderr, err := harness.RunCommand(t, "containerd-zfstpl-grpc", "--dataset", base.String(), "--address", second)
	require.Error(t, err)
	assert.Equal(t, 1, strings.Count(stderr, "\n"), "one line: %s", stderr)
	assert.Contains(t, stderr, base.String()+" is in use by")
	assert.Contains(t, stderr, first.Address)
}

// A daemon that is killed at any moment has lost nothing: the pool is the
// database.
func TestKilledDaemonKnowsEverythingAfterARestart(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	sn := d.Snapshotter(t)
	labels := snapshots.WithLabels(map[string]string{"containerd.io/snapshot/note": "kept ✓", "big": strings.Repeat("x", 20000)})
	_, err := sn.Prepare(ctx, "work", "", labels)
	require.NoError(t, err)
	require.NoError(t, sn.Commit(ctx, "image", "work", labels))
	active, err := sn.Prepare(ctx, "container", "image", labels)
	require.NoError(t, err)
	view, err := sn.View(ctx, "view", "image")
	require.NoError(t, err)
	before := harness.Everything(t, sn)
	require.Len(t, before, 3)

	d.Kill(t)
	base.Check(t)
	d.Start(t)

	again := d.Snapshotter(t)
	assert.Equal(t, before, harness.Everything(t, again))
	mounts, err := again.Mounts(ctx, "container")
	require.NoError(t, err)
	assert.Equal(t, active, mounts)
	mounts, err = again.Mounts(ctx, "view")
	require.NoError(t, err)
	assert.Equal(t, view, mounts)
	for _, key := range []string{"view", "container", "image"} {
		require.NoError(t, again.Remove(ctx, key))
	}
	require.NoError(t, again.Cleanup(ctx))
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

// Removals that returned and are not yet written are written on SIGTERM.
func TestStopWritesWhatWasRemoved(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	sn := d.Snapshotter(t)
	_, err := sn.Prepare(ctx, "gone", "")
	require.NoError(t, err)
	require.NoError(t, sn.Remove(ctx, "gone"))
	d.Stop(t)
	d.Start(t)
	_, err = d.Snapshotter(t).Stat(ctx, "gone")
	assert.True(t, errdefs.IsNotFound(err), "%v", err)
}

// Each mistake an administrator can make at the start is one line that says
// what to do.
func TestStartErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	strange := base.Runtime() // exists, and is no base
	config := filepath.Join(t.TempDir(), "config.toml")
	require.NoError(t, os.WriteFile(config, []byte("dataset = \"tank/zfstpl\"\ndatset = \"typo\"\n"), 0o600))
	open := filepath.Join(t.TempDir(), "open")
	require.NoError(t, os.Mkdir(open, 0o755))
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no dataset":         {[]string{}, "no dataset is configured"},
		"no pool":            {[]string{"--dataset", "zfstpl-no-such-pool/x"}, "zpool import"},
		"no such dataset":    {[]string{"--dataset", base.String() + "x"}, "zfstpl init " + base.String() + "x"},
		"not a base":         {[]string{"--dataset", strange}, "is not a zfstpl base"},
		"bad name":           {[]string{"--dataset", "tank/a b"}, `character ' ' is not allowed`},
		"other root":         {[]string{"--dataset", base.String(), "--root", "/elsewhere"}, "change the setting root"},
		"unknown key":        {[]string{"--config", config}, ":2: unknown key \"datset\""},
		"socket open to all": {[]string{"--dataset", base.String(), "--address", open + "/s"}, "is open to others"},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, err := harness.RunCommand(t, "containerd-zfstpl-grpc", c.args...)
			require.Error(t, err)
			// Log lines may come before; the error is the last.
			rows := strings.Split(strings.TrimSpace(stderr), "\n")
			assert.Contains(t, rows[len(rows)-1], c.want)
		})
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"containerd-zfstpl-grpc", "zfstpl"} {
		stdout, _, err := harness.RunCommand(t, name, "--version")
		require.NoError(t, err)
		assert.Contains(t, stdout, name+" version ")
	}
}
