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
	"github.com/zfstpl/zfstpl/integration/testpool"
)

func logOf(base *testpool.Base) string { return filepath.Join(base.Root, "log") }

// A log that does not belong to the state of the pool keeps the daemon and an offline cleanup
// from destroying what only the log named. The errors name the way out.
func TestNothingIsDestroyedWithoutTheLog(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	sn := d.Snapshotter(t)
	_, err := sn.Prepare(ctx, "web", "")
	require.NoError(t, err)
	_, err = sn.View(ctx, "look", "")
	require.NoError(t, err)
	d.Kill(t)
	saved := filepath.Join(t.TempDir(), "log")
	right, err := os.ReadFile(logOf(base))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(saved, right, 0o600))
	require.NoError(t, os.Remove(logOf(base)))

	assert.False(t, d.Launch(t), "the daemon does not start")
	for _, says := range []string{"the log of the base is missing", "zfstpl log discard"} {
		assert.Contains(t, d.Log.String(), says)
	}
	names := datasetNames(t, base)
	_, stderr, err := harness.RunCommand(t, "zfstpl", cleanupArgs(d)...)
	require.Error(t, err)
	assert.Contains(t, stderr, "zfstpl log discard")
	args := []string{"--config=" + os.DevNull, "--dataset=" + base.String()}
	stdout, stderr, err := harness.RunCommand(t, "zfstpl", append([]string{"ls"}, args...)...)
	require.NoError(t, err)
	assert.Contains(t, stdout, "web")
	assert.Contains(t, stderr, "recent changes may be missing")
	_, stderr, err = harness.RunCommand(t, "zfstpl", append([]string{"log"}, args...)...)
	require.Error(t, err)
	assert.Contains(t, stderr, "is missing")
	stdout, stderr, err = harness.RunCommand(t, "zfstpl", append([]string{"log", "discard"}, args...)...)
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, "Runtimes without a record")
	assert.Equal(t, names, datasetNames(t, base), "nothing is destroyed")

	// The right log puts everything back. It cannot be discarded.
	require.NoError(t, os.WriteFile(logOf(base), right, 0o600))
	d.Start(t)
	assert.Len(t, harness.Everything(t, d.Snapshotter(t)), 2)
	d.Kill(t)
	_, stderr, err = harness.RunCommand(t, "zfstpl", append([]string{"log", "discard", "--yes"}, args...)...)
	require.Error(t, err)
	assert.Contains(t, stderr, "no reason to discard it")

	// Without it the daemon continues with what the properties have.
	require.NoError(t, os.Remove(logOf(base)))
	stdout, stderr, err = harness.RunCommand(t, "zfstpl", append([]string{"log", "discard", "--yes"}, args...)...)
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, "discarded the log")
	d.Start(t)
	_, err = d.Snapshotter(t).Stat(ctx, "web")
	require.NoError(t, err)
	stdout, stderr, err = harness.RunCommand(t, "zfstpl", append([]string{"log"}, args...)...)
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, "changes are in the log")
	harness.RemoveAll(t, d.Snapshotter(t))
}

func datasetNames(t *testing.T, base *testpool.Base) string {
	t.Helper()
	return zfsCommand(t, "list", "-rHo", "name", base.String())
}

// An acknowledged change is there after a kill, whether a property has it yet or not.
func TestKilledDaemonLosesNoChangeInTheLog(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	want := make(map[string]string)
	for range 5 {
		sn := d.Snapshotter(t)
		for range 4 {
			key := "view-" + string(rune('a'+len(want)))
			_, err := sn.View(ctx, key, "")
			require.NoError(t, err)
			_, err = sn.Update(ctx, snapshots.Info{Name: key, Labels: map[string]string{"n": key}})
			require.NoError(t, err)
			want[key] = key
		}
		d.Kill(t)
		d.Start(t)
		got := make(map[string]string)
		for name, info := range harness.Everything(t, d.Snapshotter(t)) {
			got[name] = info.Labels["n"]
		}
		require.Equal(t, want, got)
	}
	harness.RemoveAll(t, d.Snapshotter(t))
}

// The log is durable whatever the pool's owner decided for containers, and containers keep
// that decision.
func TestLogHasItsOwnSync(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	zfsCommand(t, "set", "sync=disabled", "logbias=throughput", base.String())
	d := harness.StartDaemon(t, base)
	sn := d.Snapshotter(t)
	_, err := sn.Prepare(ctx, "web", "")
	require.NoError(t, err)
	var web string
	for _, e := range base.Inspect(t) {
		if len(e.Records) == 1 && e.Records[0].Name == "web" {
			web = e.Dataset
		}
	}
	get := func(dataset string) string {
		return strings.Join(strings.Fields(zfsCommand(t, "get", "-Ho", "value", "sync,logbias", dataset)), " ")
	}
	assert.Equal(t, "standard latency", get(base.String()))
	assert.Equal(t, "disabled throughput", get(web))
	assert.Equal(t, "disabled throughput", get(base.Empty().Dataset()))

	// If it is not durable all the same, changes do not wait for it, and health says so.
	health := func() grpc_health_v1.HealthCheckResponse_ServingStatus {
		reply, err := grpc_health_v1.NewHealthClient(d.Dial(t)).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "zfstpl.log"})
		require.NoError(t, err)
		return reply.Status
	}
	assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, health())
	zfsCommand(t, "set", "sync=disabled", base.String())
	require.Eventually(t, func() bool {
		_, err := sn.View(ctx, "look", "")
		if !errdefs.IsAlreadyExists(err) {
			require.NoError(t, err)
		}
		require.NoError(t, sn.Remove(ctx, "look"))
		return health() == grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}, harness.Patience, harness.Patience/100)
	d.Stop(t)
	d.Start(t)
	assert.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, health(), "a start sets it again")
	harness.RemoveAll(t, d.Snapshotter(t))
}
