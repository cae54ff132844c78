package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zfstpl/zfstpl/integration/harness"
)

// configFor writes the configuration of a daemon into a file.
func configFor(t testing.TB, d *harness.Daemon) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	text := fmt.Sprintf("dataset = %q\naddress = %q\ncontainerd_address = %q\n", d.Base.String(), d.Address, d.Containerd())
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// containerd is not where containerd_address says, as with k3s: its next differ unpacks
// layers and makes them. Its transfer service asks only one, and what a person sees of that
// is containerd's; the log names the setting. Then another containerd serves that address: the error to the first one says what is wrong.
func TestContainerdAtAnotherAddressUsesItsNextDiffer(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	c := startSecondContainerd(t, d)
	archive := writeTestImage(t)
	local := []string{"images", "import", "--snapshotter", "zfstpl", archive}
	if !containerd17(t) {
		assert.Contains(t, c.refused(t, local...), "not implemented")
		local = []string{"images", "import", "--local", "--snapshotter", "zfstpl", archive}
	}
	c.ctr(t, local...)
	assert.Zero(t, strings.Count(d.Log.String(), "applied layer"))
	out := c.ctr(t, "run", "--snapshotter", "zfstpl", testImage, "lists", "/app", "ls")
	assert.Contains(t, out, "/data/added\n")
	assert.NotContains(t, out, "/data/removed", "the whiteout was applied")
	assert.NotEmpty(t, c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "diff", "lists"))
	assert.Contains(t, d.Log.String(), "set containerd_address "+d.Containerd())
	assert.Equal(t, 1, strings.Count(d.Log.String(), "content store is unavailable"), "logged once:\n%s", d.Log)

	health := grpc_health_v1.NewHealthClient(d.Dial(t))
	for service, want := range map[string]grpc_health_v1.HealthCheckResponse_ServingStatus{
		"": grpc_health_v1.HealthCheckResponse_SERVING,
		"containerd.services.snapshots.v1.Snapshots": grpc_health_v1.HealthCheckResponse_SERVING,
		"containerd.services.diff.v1.Diff":           grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		status, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		require.NoError(t, err)
		assert.Equal(t, want, status.Status, service)
	}
	_, stderr, err := harness.RunCommand(t, "zfstpl", "config", "containerd", "--config", configFor(t, d))
	require.NoError(t, err)
	assert.Contains(t, stderr, "cannot reach containerd; set containerd_address")

	t.Run("another one is there", func(t *testing.T) {
		startContainerd(t, d)
		said := c.refused(t, "run", "--rm", "--snapshotter", "zfstpl", testImage, "again", "/app", "ls")
		assert.Contains(t, said, "containerd_address "+d.Containerd())
		before := d.RecordNames(t)
		c.ctr(t, "containers", "delete", "lists")
		c.ctr(t, "images", "delete", "--sync", testImage) // and collects
		assert.Equal(t, before, d.RecordNames(t), "its collection sees nothing")
		_, stderr, err := harness.RunCommand(t, "zfstpl", "config", "containerd", "--config", configFor(t, d))
		require.NoError(t, err)
		assert.Empty(t, stderr)
	})
}
