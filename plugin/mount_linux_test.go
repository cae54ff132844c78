package plugin

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

func TestCheckMountRefusesOtherMounts(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	const at = "/var/lib/zfstpl"
	for what, c := range map[string]struct {
		mount mountinfo.Info
		says  string
	}{
		"the base":            {mountinfo.Info{FSType: "zfs", Source: "tank/zfstpl", Root: "/", Mountpoint: at}, ""},
		"the base, elsewhere": {mountinfo.Info{FSType: "zfs", Source: "tank/zfstpl", Root: "/", Mountpoint: "/elsewhere"}, ""},
		"a mount over it":     {mountinfo.Info{FSType: "tmpfs", Source: "none", Root: "/", Mountpoint: at}, "none (tmpfs) at /var/lib/zfstpl"},
		"a mount above it":    {mountinfo.Info{FSType: "ext4", Source: "/dev/sda2", Root: "/", Mountpoint: "/var"}, "/dev/sda2 (ext4) at /var"},
		"another dataset":     {mountinfo.Info{FSType: "zfs", Source: "tank/zfstpl2", Root: "/", Mountpoint: at}, "tank/zfstpl2 (zfs)"},
		"a directory of it":   {mountinfo.Info{FSType: "zfs", Source: "tank/zfstpl", Root: "/a", Mountpoint: at}, "tank/zfstpl (zfs)"},
		"another file system": {mountinfo.Info{FSType: "tmpfs", Source: "tank/zfstpl", Root: "/", Mountpoint: at}, "tank/zfstpl (tmpfs)"},
	} {
		err := checkMount(base, at, &c.mount)
		if c.says == "" {
			assert.NoError(t, err, what)
			continue
		}
		require.ErrorContains(t, err, c.says, what)
		assert.ErrorContains(t, err, "dataset tank/zfstpl is mounted at "+at, what)
		assert.NotContains(t, err.Error(), "\n", what)
	}
}

// The kernel reports the mount of a directory that is not itself a mount point.
func TestMountOfReturnsTheMountOfADirectory(t *testing.T) {
	t.Parallel()
	proc, err := realMountOf(rootAt(t, "/proc/sys"))
	require.NoError(t, err)
	assert.Equal(t, "proc", proc.FSType)
	here, err := realMountOf(rootAt(t, t.TempDir()))
	require.NoError(t, err)
	assert.NotEqual(t, "proc", here.FSType)
	assert.NotEmpty(t, here.Source)
}

// A directory that a mount above it covers does not exist: the nearest existing one
// shows that mount.
func TestOpenNearestOpensTheNearestDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := openNearest(filepath.Join(dir, "a", "b"))
	require.NoError(t, err)
	defer root.Close()
	assert.Equal(t, dir, root.Name())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	_, err = openNearest(filepath.Join(dir, "file"))
	require.Error(t, err)

	base, err := layout.ParseBase("tank/zfstpl")
	require.NoError(t, err)
	_, err = openRoot(base, filepath.Join(dir, "a", "b"))
	require.ErrorIs(t, err, os.ErrNotExist, "no mount covers it")
}
