package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

// cover mounts a tmpfs over a directory and returns what takes it away.
func cover(t testing.TB, dir string) (uncover func()) {
	t.Helper()
	require.NoError(t, unix.Mount("covers", dir, "tmpfs", 0, ""))
	mounted := true
	uncover = func() {
		if mounted {
			mounted = false
			require.NoError(t, unix.Unmount(dir, 0))
		}
	}
	t.Cleanup(uncover)
	return uncover
}

// requireCovered asserts that neither a daemon nor a cleanup begins on a base whose root
// is covered, and that each names in one line what covers it.
func requireCovered(t testing.TB, base *testpool.Base, says string) {
	t.Helper()
	requireRefused(t, base, says, "containerd-zfstpl-grpc", "--containerd-address", "")
	requireRefused(t, base, says, "zfstpl", "cleanup")
	requireRefused(t, base, says, "zfstpl", "cleanup", "--stop")
}

// requireRefused asserts that a program of ours refuses a base, and says why.
func requireRefused(t testing.TB, base *testpool.Base, says, name string, args ...string) {
	t.Helper()
	args = append(args, "--config", "/dev/null", "--dataset", base.String(), "--address", filepath.Join(t.TempDir(), "z.sock"))
	_, stderr, err := harness.RunCommand(t, name, args...)
	require.Error(t, err, "%s %q", name, args)
	assert.Equal(t, 1, strings.Count(stderr, "\n"), "one line: %s", stderr)
	assert.Contains(t, stderr, "dataset "+base.String())
	assert.Contains(t, stderr, says)
}

// inNamespace is a daemon on a base that starts in a mount namespace of its own, after a
// script.
func inNamespace(t testing.TB, base *testpool.Base, script string) string {
	t.Helper()
	out, err := exec.Command("unshare", "--mount", "sh", "-c", script+`exec "$0" "$@"`, harness.Binary(t, "containerd-zfstpl-grpc"),
		"--config", "/dev/null", "--dataset", base.String(), "--address", filepath.Join(t.TempDir(), "z.sock"), "--containerd-address", "").CombinedOutput()
	require.Error(t, err, "%s", out)
	return string(out)
}

// Another mount covers the base: with a daemon that runs already, and before one starts;
// on the base's root, and above it. There is no second daemon and no cleanup beside the
// first, and nothing is written into what covers it.
func TestDaemonRefusesACoveredBase(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	above := filepath.Dir(base.Root)
	for _, dir := range []string{base.Root, above} {
		uncover := cover(t, dir)
		requireCovered(t, base, "covers (tmpfs) at "+dir)
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		require.NoError(t, err)
		assert.Empty(t, names, "nothing is left in %s", dir)
		uncover()
	}
	_, err := d.Snapshotter(t).Prepare(t.Context(), "web", "")
	require.NoError(t, err, "the first goes on")

	uncover := cover(t, base.Root)
	require.NoError(t, d.Snapshotter(t).Remove(t.Context(), "web"))
	d.Stop(t)
	names, err := filepath.Glob(filepath.Join(base.Root, "*"))
	require.NoError(t, err)
	assert.Empty(t, names, "what it keeps for a cleanup is in the base")
	requireCovered(t, base, "covers (tmpfs) at "+base.Root)
	uncover()
	assert.FileExists(t, filepath.Join(base.Root, "cleanup.json"))
	d.Start(t)
	assert.Empty(t, harness.Everything(t, d.Snapshotter(t)))
	d.Clean(t)
}

// Two daemons meet whichever mount of the base they see: in a mount namespace of its own,
// with the base mounted a second time, or mounted by the second one.
func TestLockBelongsToTheFileSystem(t *testing.T) {
	base := pool.NewBase(t)
	harness.StartDaemon(t, base)
	elsewhere := t.TempDir()
	for what, script := range map[string]string{
		"another mount namespace":     "",
		"mounted a second time":       "mount -t zfs -o zfsutil " + base.String() + " " + elsewhere + " && umount " + base.Root + " && mount --bind " + elsewhere + " " + base.Root + " && ",
		"a bind of it over it":        "mount --bind " + base.Root + " " + base.Root + " && ",
		"not mounted there but by it": "umount " + base.Root + " && ",
	} {
		assert.Contains(t, inNamespace(t, base, script), "in use by containerd-zfstpl-grpc", what)
	}
	assert.Contains(t, inNamespace(t, base, "mount -t tmpfs covers "+base.Root+" && "), "covers (tmpfs) at "+base.Root)
}
