package integration

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testimage"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// harmful are the values that a dataset above a base may have at its worst.
var harmful = []string{
	"normalization=formD", "utf8only=on", "casesensitivity=insensitive",
	"snapdir=visible", "acltype=off", "xattr=off", "exec=off", "setuid=off", "devices=off", "nbmand=on",
	"sharenfs=on", "sharesmb=on", "overlay=off", "aclmode=restricted", "aclinherit=noallow", "atime=on",
	"checksum=off", "primarycache=metadata", "secondarycache=none", "sync=disabled", "copies=2", "redundant_metadata=none",
	"recordsize=8K", "compression=zle", "vscan=on", "logbias=throughput", "snapdev=visible", "volmode=none",
	"longname=on", "direct=always", "prefetch=none", "readonly=on",
}

// harmfulSince24 are such that release 2.4 brought.
var harmfulSince24 = []string{
	"defaultuserquota=64K", "defaultuserobjquota=3", "defaultgroupquota=64K", "defaultgroupobjquota=3",
	"defaultprojectquota=64K", "defaultprojectobjquota=3",
}

// harmfulParent makes a dataset with all of them. ZFS itself shares nothing here.
func harmfulParent(t *testing.T, p *testpool.Pool) string {
	t.Helper()
	name := p.Name + "/parent"
	args := []string{"create", "-u", "-o", "canmount=off"}
	for _, property := range harmful {
		args = append(args, "-o", property)
	}
	zfsCommand(t, append(args, name)...)
	client, err := zfs.Open(context.Background(), p.Name, "zfstpl:", zfs.Command)
	require.NoError(t, err)
	release, err := client.Release(context.Background())
	require.NoError(t, err)
	if release.AtLeast(zfs.Release{Major: 2, Minor: 4}) {
		for _, property := range harmfulSince24 {
			zfsCommand(t, "set", property, name)
		}
	}
	zfsCommand(t, "set", "zoned=on", name)
	return name
}

// hardNames differ in normalization or case alone, are not UTF-8, or are like a control
// directory's.
var hardNames = []string{"e\u0301", "\u00e9", "caf\xe9", "README", "readme", "zfs"}

// A base below a dataset with every harmful value is like any other: all names survive,
// programs run, as any user, and .zfs is not there.
func TestBaseBelowAHarmfulParentIsLikeAnyOther(t *testing.T) {
	t.Parallel()
	p := oddPool(t)
	base := initBase(t, p, harmfulParent(t, p)+"/z")
	d := harness.StartDaemon(t, base)
	assert.NotContains(t, d.Log.String(), "harmful property")
	useBase(t, d)
	c := startContainerd(t, d)
	var files []testimage.File
	for _, name := range hardNames {
		files = append(files, testimage.File{Name: "data/" + name, Content: []byte(name)})
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, testimage.Write(archive, testImage, harness.Binary(t, "app"), files))
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", archive)
	c.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", testImage, "runs", "/app", "wait")
	listed := c.ctr(t, "tasks", "exec", "--exec-id", "ls", "runs", "/app", "ls")
	for _, name := range hardNames {
		assert.Contains(t, listed, "/data/"+name+"\n")
	}
	assert.NotContains(t, listed, ".zfs")

	mounts, err := c.snapshotter(t, "default").Mounts(context.Background(), "runs")
	require.NoError(t, err)
	foreign := base.Source(t, mounts) + "@autosnap_daily"
	zfsCommand(t, "snapshot", foreign)
	harness.Mounted(t, mounts, func(root string) {
		for _, hidden := range []string{".zfs", ".zfs/snapshot", ".zfs/snapshot/autosnap_daily"} {
			_, err := os.Lstat(filepath.Join(root, hidden))
			assert.ErrorIs(t, err, os.ErrNotExist, hidden)
		}
		for n := range 8 { // as a user with no quota of its own
			file := filepath.Join(root, "data", "more"+string(rune('a'+n)))
			require.NoError(t, os.WriteFile(file, make([]byte, 64<<10), 0o644))
			require.NoError(t, os.Chown(file, 1000, 1000))
		}
	})
	zfsCommand(t, "destroy", foreign)
	c.ctr(t, "tasks", "kill", "--signal", "SIGKILL", "runs")
	c.ctr(t, "tasks", "delete", "--force", "runs")
	c.ctr(t, "containers", "delete", "runs")
	c.ctr(t, "images", "delete", "--sync", testImage)
}

// Of a base that has harmful values already, a start says so, with what helps.
func TestAStartReportsHarmfulProperties(t *testing.T) {
	t.Parallel()
	p := oddPool(t)
	base := initBase(t, p, p.Name+"/z", "-o", "normalization=formC", "-o", "casesensitivity=mixed")
	zfsCommand(t, "set", "snapdir=visible", base.String())
	zfsCommand(t, "set", "exec=off", base.Runtime())
	d := harness.StartDaemon(t, base)
	for _, says := range []string{
		"fix=\"zfs set snapdir=disabled " + base.String() + "\"",
		"fix=\"zfs inherit exec " + base.Runtime() + "\"",
		"property=normalization", "property=utf8only", "property=casesensitivity", "create another base with 'zfstpl init'",
	} {
		assert.Contains(t, d.Log.String(), says)
	}
	assert.Equal(t, 5, strings.Count(d.Log.String(), "harmful property of base"), "each once: %s", d.Log)
	_, stderr, err := harness.RunCommand(t, "zfstpl", "init", base.String(), "--config", "/dev/null")
	require.NoError(t, err)
	assert.Contains(t, stderr, "zfs set snapdir=disabled "+base.String())
}
