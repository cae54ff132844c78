package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

// oddPool is a pool that is not like most; args are options of 'zpool create'.
func oddPool(t *testing.T, args ...string) *testpool.Pool {
	t.Helper()
	p, err := testpool.CreateOdd(args...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close(context.Background())) })
	return p
}

// initBase makes a base with our command, as an administrator does.
func initBase(t *testing.T, p *testpool.Pool, name string, options ...string) *testpool.Base {
	t.Helper()
	root := filepath.Join(p.Dir, filepath.Base(name))
	_, stderr, err := harness.RunCommand(t, "zfstpl", append([]string{"init", name, "--config", "/dev/null", "--root", root}, options...)...)
	require.NoError(t, err, stderr)
	return p.MadeBase(t, name, root)
}

func zpoolCommand(t testing.TB, args ...string) {
	t.Helper()
	out, err := exec.Command("zpool", args...).CombinedOutput()
	require.NoError(t, err, "zpool %v: %s", args, out)
}

// useBase unpacks two layers, runs on them, commits and cleans up, and leaves nothing.
func useBase(t *testing.T, d *harness.Daemon) {
	t.Helper()
	ctx := context.Background()
	sn := d.Snapshotter(t)
	one := harness.PullLayer(t, sn, "default", 1, "", harness.ChainID(1))
	two := harness.PullLayer(t, sn, "default", 3, one, harness.ChainID(2))
	mounts, err := sn.Prepare(ctx, "default/5/web", two)
	require.NoError(t, err)
	harness.Mounted(t, mounts, func(root string) {
		assert.FileExists(t, filepath.Join(root, "layer-0001"))
		require.NoError(t, os.WriteFile(filepath.Join(root, "new"), []byte("new"), 0o644))
	})
	stdout, stderr, err := harness.RunCommand(t, "zfstpl", "diff", "web", "--config", "/dev/null", "--dataset", d.Base.String())
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, "A /new\n")
	require.NoError(t, sn.Commit(ctx, "default/6/image", "default/5/web"))
	_, err = sn.View(ctx, "default/7/look", "default/6/image")
	require.NoError(t, err)
	for _, key := range []string{"default/7/look", "default/6/image", two, one} {
		require.NoError(t, sn.Remove(ctx, key))
	}
	require.NoError(t, sn.Cleanup(ctx))
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, d.Base.Names(t))
}

// What a pool lacks a feature for is left out, and everything works.
func TestPoolsThatLackFeaturesWork(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		args []string
		want string // compression and dnodesize
	}{
		"grub2":       {[]string{"-o", "compatibility=grub2"}, "lz4\nlegacy\n"},
		"2.0":         {[]string{"-o", "compatibility=openzfs-2.0-linux"}, "lz4\nauto\n"},
		"no features": {[]string{"-d"}, "on\nlegacy\n"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := oddPool(t, c.args...)
			base := initBase(t, p, p.Name+"/z")
			assert.Equal(t, c.want, zfsCommand(t, "get", "-Ho", "value", "compression,dnodesize", base.String()))
			useBase(t, harness.StartDaemon(t, base))
		})
	}
}

// In a pool that is imported below an altroot a base is mounted there, whether root says
// so or not.
func TestBaseBelowAnAltrootIsMountedThere(t *testing.T) {
	t.Parallel()
	alt := t.TempDir()
	p := oddPool(t, "-R", alt)
	name, place := p.Name+"/z", filepath.Join(alt, "srv/z")
	command := func(args ...string) (string, string, error) {
		return harness.RunCommand(t, "zfstpl", append(args, "--config", "/dev/null")...)
	}
	for _, root := range []string{"/srv/z", "/srv/z", place} {
		stdout, stderr, err := command("init", "--root", root, name)
		require.NoError(t, err, stderr)
		assert.Contains(t, stdout, `root = "`+place+`"`, root)
		stdout, stderr, err = command("config", "containerd", "--dataset", name, "--root", root)
		require.NoError(t, err, stderr)
		assert.Contains(t, stdout, `root = "`+place+`"`, root)
	}
	base := p.MadeBase(t, name, place)
	_, stderr, err := command("init", "--root", "/srv/other", name)
	require.Error(t, err)
	assert.Contains(t, stderr, "zfs set mountpoint=/srv/other "+name)

	d := harness.StartDaemon(t, base)
	useBase(t, d)
	d.Stop(t)
	base.Root = "/srv/z" // as the property has it
	d = harness.StartDaemon(t, base)
	assert.Contains(t, d.Log.String(), "root="+place)
	base.Root = place
	_, stderr, err = harness.RunCommand(t, "containerd-zfstpl-grpc", "--config", "/dev/null", "--dataset", name, "--root", "/srv/other")
	require.Error(t, err)
	assert.Contains(t, stderr, "change the setting root")
}

// An init that fails leaves nothing, and nothing of others is touched.
func TestInitIsAllOrNothing(t *testing.T) {
	t.Parallel()
	p := oddPool(t)
	name := p.Name + "/z"
	file := filepath.Join(p.Dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for what, args := range map[string][]string{
		"no place to mount it": {"--root", filepath.Join(file, "z")},
		"no such value":        {"--root", filepath.Join(p.Dir, "z"), "-o", "recordsize=3"},
		"no such property":     {"--root", filepath.Join(p.Dir, "z"), "-o", "colour=blue"},
	} {
		_, stderr, err := harness.RunCommand(t, "zfstpl", append([]string{"init", name, "--config", "/dev/null"}, args...)...)
		require.Error(t, err, what)
		assert.Equal(t, 1, strings.Count(stderr, "\n"), "%s: %s", what, stderr)
		assert.Equal(t, p.Name+"\n", zfsCommand(t, "list", "-Hro", "name", p.Name), what)
	}
	initBase(t, p, name)
}

// A pool that is imported read-only can be looked at, with either client.
func TestReadOnlyPoolCanBeInspected(t *testing.T) {
	t.Parallel()
	p := oddPool(t)
	base := initBase(t, p, p.Name+"/z")
	d := harness.StartDaemon(t, base, "--ready-runtimes=0") // they would be garbage
	sn, ctx := d.Snapshotter(t), context.Background()
	one := harness.PullLayer(t, sn, "default", 1, "", harness.ChainID(1))
	mounts, err := sn.Prepare(ctx, "default/3/web", one)
	require.NoError(t, err)
	harness.Mounted(t, mounts, func(root string) { require.NoError(t, harness.Touch(root, "new")) })
	require.NoError(t, sn.Cleanup(ctx))
	d.Stop(t)
	reimport := func(options ...string) {
		zpoolCommand(t, "export", p.Name)
		zpoolCommand(t, append(append([]string{"import", "-d", p.Dir, "-o", "cachefile=none"}, options...), p.Name)...)
	}
	reimport("-o", "readonly=on")
	for _, client := range []string{"native", "command"} {
		config := filepath.Join(t.TempDir(), "config.toml")
		require.NoError(t, os.WriteFile(config, []byte("dataset = '"+base.String()+"'\nzfs_client = '"+client+"'\n"), 0o600))
		for command, says := range map[string]string{
			"ls": "default/web", "df": "pool " + p.Name, "cleanup --dry-run": "0 datasets", "config containerd": base.Root,
			"diff web": "A /new\n", "diff --parent " + one + " web": "A /new\n", "diff " + one: "A /layer-0001\n",
		} {
			stdout, stderr, err := harness.RunCommand(t, "zfstpl", append(strings.Fields(command), "--config", config)...)
			require.NoError(t, err, "%s %s: %s", client, command, stderr)
			assert.Contains(t, stdout, says, "%s %s", client, command)
		}
		_, stderr, err := harness.RunCommand(t, "zfstpl", "cleanup", "--check", "--config", config)
		assert.NotContains(t, stderr, "zfstpl:", "%s: %v", client, err)
		for _, command := range [][]string{{"zfstpl", "cleanup"}, {"zfstpl", "init"}, {"containerd-zfstpl-grpc"}} {
			_, stderr, err := harness.RunCommand(t, command[0], append(command[1:], "--config", config)...)
			require.Error(t, err)
			assert.Contains(t, stderr, "pool "+p.Name+" is imported read-only", command)
			assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
		}
	}
	reimport()
	d.Start(t)
	for _, key := range []string{"default/3/web", one} {
		require.NoError(t, d.Snapshotter(t).Remove(ctx, key))
	}
}
