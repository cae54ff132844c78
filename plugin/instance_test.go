package plugin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// listed returns the outputs of zfs for a base with these properties.
func listed(props ...string) map[string]string {
	mountpoint, user := "none", make(map[string]string)
	for _, p := range props {
		name, value, _ := strings.Cut(p, "=")
		if name == "mountpoint" {
			mountpoint = value
		} else {
			user[name] = value
		}
	}
	version := "zfstpl:version\t-\t-\n"
	if v, ok := user["zfstpl:version"]; ok {
		version = "zfstpl:version\tlocal\t" + v + "\n"
	}
	text, err := json.Marshal(map[string]any{"return": map[string]any{
		"POOL/z":               map[string]any{"props": user},
		"POOL/z/storage/empty": map[string]any{"snapshots": map[string]string{"1": "POOL/z/storage/empty@extracted"}},
	}})
	if err != nil {
		panic(err)
	}
	return map[string]string{
		"filesystems": "POOL/z\t-\t1\t5\t1700000000\t0\t0\t" + mountpoint + "\n",
		"properties":  string(text),
		"base":        "mountpoint\tlocal\t" + mountpoint + "\n" + version,
	}
}

// Each error has one line that says what to do.
func TestOpenPoolErrorNamesTheFix(t *testing.T) {
	t.Parallel()
	for says, output := range map[string]string{
		"zpool import": "cannot open 'x': no such pool\n",
		"modprobe zfs": "The ZFS modules cannot be auto-loaded.\nTry running 'modprobe zfs' as root to manually load them.\n",
		"suspended":    "cannot open 'x': pool I/O is currently suspended\n",
	} {
		if os.Geteuid() != 0 {
			says = "must be started as root"
		}
		base, _ := fakePool(t, map[string]string{"program.err": output})
		_, err := OpenPool(t.Context(), base, zfs.Auto)
		require.ErrorContains(t, err, says)
		assert.NotContains(t, err.Error(), "\n")
	}
}

func TestMountBaseMountsTheBase(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	good := listed("zfstpl:version=1", "mountpoint="+root)
	for _, want := range []string{"", root, root + "/"} {
		base, dir := fakePool(t, good)
		got, err := mountBase(t.Context(), opened(t, base), base, want)
		require.NoError(t, err)
		assert.Equal(t, root, got)
		calls, err := os.ReadFile(filepath.Join(dir, "calls"))
		require.NoError(t, err)
		assert.Contains(t, string(calls), "mount "+base.String()+"\n", "the base was not mounted")
	}
}

func TestMountBaseErrorNamesTheFix(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	with := func(outputs map[string]string, name, text string) map[string]string {
		outputs[name] = text
		return outputs
	}
	for what, c := range map[string]struct {
		outputs map[string]string
		want    string
		says    string
	}{
		"no dataset":     {map[string]string{"base.err": "cannot open 'POOL/z': dataset does not exist\n"}, "", "zfstpl init"},
		"foreign":        {listed("mountpoint=" + root), "", "not a zfstpl base"},
		"newer":          {listed("mountpoint="+root, "zfstpl:version=9"), "", "newer zfstpl"},
		"legacy":         {listed("zfstpl:version=1", "mountpoint=legacy"), "", "zfs set mountpoint=" + DefaultRoot},
		"none":           {listed("zfstpl:version=1", "mountpoint=none"), "", "zfs set mountpoint=" + DefaultRoot},
		"elsewhere":      {listed("zfstpl:version=1", "mountpoint="+root), "/srv/z", "change the setting root"},
		"cannot mount":   {with(listed("zfstpl:version=1", "mountpoint="+root), "mount.err", "cannot mount 'x': permission denied\n"), "", "permission denied"},
		"cannot be read": {map[string]string{"base.err": "cannot open 'x': pool I/O is currently suspended\n"}, "", "suspended"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			base, _ := fakePool(t, c.outputs)
			_, err := mountBase(t.Context(), opened(t, base), base, c.want)
			require.ErrorContains(t, err, c.says)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestMountedAtFindsOnlyZFS(t *testing.T) {
	t.Parallel()
	mounted, err := mountedAt("pool/none", "/nowhere")
	require.NoError(t, err)
	assert.False(t, mounted)
	mounted, err = mountedAt("proc", "/proc")
	require.NoError(t, err)
	assert.False(t, mounted, "it is mounted, but not ZFS")
}

func TestCloseReleasesTheBase(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		_, err := Open(t.Context(), Config{Dataset: "tank", Address: "/run/x.sock", LogLevel: "info"})
		require.ErrorContains(t, err, "must be started as root")
		return
	}
	root := t.TempDir()
	outputs := listed("zfstpl:version=1", "mountpoint="+root)
	outputs["filesystems"] += "POOL/z/storage/empty\t-\t2\t6\t1700000000\t0\t0\tlegacy\n"
	base, _ := fakePool(t, outputs)
	config := DefaultConfig()
	config.Dataset, config.Address = base.String(), "/run/x.sock"
	instance, err := Open(t.Context(), config)
	require.NoError(t, err)
	assert.Equal(t, root, instance.Root)
	require.NoError(t, instance.Walk(t.Context(), nil))
	_, err = Open(t.Context(), config)
	require.ErrorContains(t, err, "in use by", "a second snapshotter on the same base")
	require.NoError(t, instance.Close())
	waitUnlocked(t, root)
	instance, err = Open(t.Context(), config)
	require.NoError(t, err, "the base is unlocked")
	require.NoError(t, instance.Close())

	// An Open that fails late leaves no lock.
	broken, dir := fakePool(t, listed("zfstpl:version=1", "mountpoint="+root))
	config.Dataset = broken.String()
	for range 2 {
		_, err = Open(t.Context(), config)
		require.ErrorContains(t, err, "zfstpl init", "there is no empty template")
		waitUnlocked(t, root)
	}
	require.NoError(t, os.RemoveAll(dir))
}
