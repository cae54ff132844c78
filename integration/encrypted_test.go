package integration

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

// encryption is the properties of a key in a file, as options.
func encryption(t *testing.T, option string) []string {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	secret := make([]byte, 32)
	_, err := rand.Read(secret)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(key, secret, 0o600))
	return []string{option, "encryption=on", option, "keyformat=raw", option, "keylocation=file://" + key}
}

// A base may have a key of its own or that of a dataset above. The native client needs
// no key but the base's.
func TestEncryptedBasesWork(t *testing.T) {
	t.Parallel()
	p := oddPool(t, encryption(t, "-O")...)
	own := initBase(t, p, p.Name+"/own", encryption(t, "-o")...)
	inherited := initBase(t, p, p.Name+"/inherited")
	for base, root := range map[*testpool.Base]string{own: own.String(), inherited: p.Name} {
		assert.Equal(t, root+"\n", zfsCommand(t, "get", "-Ho", "value", "encryptionroot", base.Empty().Dataset()))
	}
	d := harness.StartDaemon(t, inherited)
	assert.Contains(t, d.Log.String(), "client=native")
	useBase(t, d)
	d.Stop(t)

	zfsCommand(t, "unmount", inherited.String())
	zfsCommand(t, "unload-key", p.Name)
	startsWithItsKey(t, inherited, p.Name, func() { zfsCommand(t, "load-key", p.Name) })
	zfsCommand(t, "unmount", inherited.String())
	zfsCommand(t, "unload-key", p.Name)
	d = harness.StartDaemon(t, own)
	assert.Contains(t, d.Log.String(), "client=native", "the pool's root has another key, which is not loaded")
	runEncrypted(t, d)
	d.Stop(t)
	zfsCommand(t, "unmount", own.String())
	zfsCommand(t, "unload-key", own.String())
	startsWithItsKey(t, own, own.String(), func() { zfsCommand(t, "load-key", own.String()) })
	zfsCommand(t, "load-key", p.Name)
	zfsCommand(t, "mount", inherited.String())
}

// startsWithItsKey looks at a base whose key is not loaded, and starts it once it is.
func startsWithItsKey(t *testing.T, base *testpool.Base, root string, load func()) {
	t.Helper()
	for _, command := range [][]string{{"containerd-zfstpl-grpc"}, {"containerd-zfstpl-grpc", "--zfs-client", "command"}} {
		_, stderr, err := harness.RunCommand(t, command[0], append(command[1:], "--config", "/dev/null", "--dataset", base.String())...)
		require.Error(t, err)
		assert.Contains(t, stderr, "'zfs load-key "+root+"'")
		assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
	for _, args := range [][]string{{"init", base.String()}, {"init", base.String() + "/below"}} {
		_, stderr, err := harness.RunCommand(t, "zfstpl", append(args, "--config", "/dev/null")...)
		require.Error(t, err)
		assert.Contains(t, stderr, "'zfs load-key "+root+"'")
	}
	for _, args := range [][]string{{"ls"}, {"df"}, {"cleanup", "--dry-run"}} {
		_, stderr, err := harness.RunCommand(t, "zfstpl", append(args, "--config", "/dev/null", "--dataset", base.String())...)
		assert.NoError(t, err, "%v: %s", args, stderr)
	}
	load()
	d := harness.StartDaemon(t, base)
	assert.Contains(t, d.Log.String(), "client=native")
	d.Stop(t)
}

// runEncrypted imports an image, runs it, makes a layer of what it changed and removes it.
func runEncrypted(t *testing.T, d *harness.Daemon) {
	t.Helper()
	c := startContainerd(t, d)
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeTestImage(t))
	c.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", testImage, "runs", "/app", "wait")
	c.ctr(t, "tasks", "exec", "--exec-id", "writes", "runs", "/app", "write", "/data/new", "new")
	names := differ.TarNames(t, []byte(c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "diff", "--media-type", "application/vnd.oci.image.layer.v1.tar", "runs")))
	assert.Contains(t, names, "data/new")
	assert.NotContains(t, names, "app")
	assert.NotContains(t, d.Log.String(), "failed to list changed objects")
	c.ctr(t, "tasks", "kill", "--signal", "SIGKILL", "runs")
	c.ctr(t, "tasks", "delete", "--force", "runs")
	c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "commit", "saved", "runs")
	c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "rm", "saved")
	c.ctr(t, "containers", "delete", "runs")
	c.ctr(t, "images", "delete", "--sync", testImage)
	d.Clean(t)
}
