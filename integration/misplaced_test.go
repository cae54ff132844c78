package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

// 'zfs inherit -r mountpoint' makes ZFS mount every template and runtime, writable. The
// next start puts that right. What is busy stays mounted, and so does what a container
// has mounted.
func TestLostMountpointsAreReset(t *testing.T) {
	t.Parallel()
	for _, choice := range testpool.Clients() {
		t.Run(string(choice), func(t *testing.T) {
			t.Parallel()
			lostMountpoints(t, string(choice))
		})
	}
}

func lostMountpoints(t *testing.T, choice string) {
	ctx := context.Background()
	p := oddPool(t)
	base := initBase(t, p, p.Name+"/z")
	// The base keeps its own place: the daemon has it open.
	d := harness.StartDaemon(t, base, "--zfs-client", choice, "--mounts", "zfs")
	sn := d.Snapshotter(t)
	one := harness.PullLayer(t, sn, "default", 1, "", harness.ChainID(1))
	two := harness.PullLayer(t, sn, "default", 3, one, harness.ChainID(2))
	idle, err := sn.Prepare(ctx, "default/5/idle", two)
	require.NoError(t, err)
	runs, err := sn.Prepare(ctx, "default/6/runs", two)
	require.NoError(t, err)
	d.Stop(t)

	container, view := t.TempDir(), t.TempDir()
	template := base.Storage() + "/" + harness.ChainID(2)
	for _, child := range []string{base.Storage(), base.Runtime()} {
		zfsCommand(t, "set", "canmount=on", child)
		zfsCommand(t, "inherit", "mountpoint", child)
	}
	require.NoError(t, mount.All(runs, container))
	t.Cleanup(func() { _ = mount.UnmountAll(container, 0) })
	require.NoError(t, mount.All([]mount.Mount{{Type: "zfs", Source: template + "@extracted", Options: []string{"ro"}}}, view))
	t.Cleanup(func() { _ = mount.UnmountAll(view, 0) })
	own := filepath.Join(p.Dir, "own")
	zfsCommand(t, "set", "mountpoint="+own, base.Storage()+"/"+harness.ChainID(1))
	for _, dataset := range []string{base.Storage(), base.Runtime(), base.Empty().Dataset(), template, idle[0].Source, base.Storage() + "/" + harness.ChainID(1)} {
		_ = exec.Command("zfs", "mount", dataset).Run() // some are mounted already
	}
	busy, err := os.Open(filepath.Join(base.Root, "storage", "empty"))
	require.NoError(t, err)
	before, err := p.Mounts(base.Storage())
	require.NoError(t, err)
	require.Greater(t, len(before), 3, "ZFS mounted them")

	d.Start(t)
	mounts, err := p.Mounts(base.Storage())
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{view, busy.Name(), filepath.Dir(busy.Name())}, mounts, "%s", d.Log)
	mounts, err = p.Mounts(base.Runtime())
	require.NoError(t, err)
	assert.Equal(t, []string{container}, mounts)
	assert.Contains(t, d.Log.String(), `fix="umount `+busy.Name()+`"`)
	for _, dataset := range []string{base.Storage(), base.Runtime(), base.Empty().Dataset(), template, base.Storage() + "/" + harness.ChainID(1), idle[0].Source} {
		assert.Equal(t, "legacy\n", zfsCommand(t, "get", "-Ho", "value", "mountpoint", dataset), dataset)
	}
	require.NoError(t, busy.Close())
	d.Stop(t)
	d.Start(t)
	require.NoError(t, mount.UnmountAll(view, 0))
	require.NoError(t, mount.UnmountAll(container, 0))
	base.Check(t)
	d.Stop(t)
	d.Start(t)
	assert.NotContains(t, d.Log.String(), "mountpoint of dataset", "nothing is reset, and nothing is logged")
	for _, key := range []string{"default/5/idle", "default/6/runs", two, one} {
		require.NoError(t, d.Snapshotter(t).Remove(ctx, key))
	}
	require.NoError(t, d.Snapshotter(t).Cleanup(ctx))
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}
