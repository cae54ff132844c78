package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
)

// thinDisk is a directory on a file system that can be filled, so that whatever a
// pool in it still wants to write is refused: its disk fails.
type thinDisk struct{ dir string }

func newThinDisk(t *testing.T, size int64) thinDisk {
	t.Helper()
	d := thinDisk{t.TempDir()}
	require.NoError(t, unix.Mount("tmpfs", d.dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)))
	t.Cleanup(func() { assert.NoError(t, unix.Unmount(d.dir, 0)) })
	return d
}

func (d thinDisk) filler() string { return filepath.Join(d.dir, "filler") }

// fail fills the file system to its last page.
func (d thinDisk) fail(t *testing.T) {
	t.Helper()
	file, err := os.Create(d.filler())
	require.NoError(t, err)
	page := make([]byte, 4096)
	for err == nil {
		_, err = file.Write(page)
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, file.Close())
}

func (d thinDisk) heal(t *testing.T, p *testpool.Pool) {
	t.Helper()
	require.NoError(t, os.Remove(d.filler()))
	out, err := exec.Command("zpool", "clear", p.Name).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// A pool that loses its disk is suspended: no caller hangs, errors and the health
// check say so, and when the disk is back everything goes on where it was.
func TestNoCallerHangsOnASuspendedPool(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	disk := newThinDisk(t, 96*harness.MiB)
	p, err := testpool.CreateIn(disk.dir, 1024*harness.MiB) // more than there is
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close(ctx)) })
	base := p.NewBase(t)
	d := harness.StartDaemon(t, base)
	sn := d.Snapshotter(t)
	_, err = sn.Prepare(ctx, "before", "")
	require.NoError(t, err)
	health := grpc_health_v1.NewHealthClient(d.Dial(t))
	serving := func() grpc_health_v1.HealthCheckResponse_ServingStatus {
		reply, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		require.NoError(t, err)
		return reply.Status
	}
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, serving())

	disk.fail(t)
	// What is under way when it happens waits for the disk, and its caller
	// does so no longer than its context.
	short, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for err = nil; err == nil; {
		_, err = sn.Prepare(short, "meanwhile-"+time.Now().String(), "")
	}
	require.True(t, errors.Is(err, context.DeadlineExceeded) || errdefs.IsDeadlineExceeded(err) || errdefs.IsUnavailable(err), "%v", err)
	require.Eventually(t, func() bool { return serving() == grpc_health_v1.HealthCheckResponse_NOT_SERVING }, harness.Patience, 100*time.Millisecond)
	require.Eventually(t, func() bool { return strings.Contains(d.Log.String(), "pool is suspended") }, harness.Patience, 50*time.Millisecond, "its log may come after its reply")
	_, err = sn.Prepare(ctx, "during", "")
	require.True(t, errdefs.IsUnavailable(err), "%v", err)
	assert.ErrorContains(t, err, "zpool clear", "what to do")
	_, err = sn.Stat(ctx, "before")
	require.NoError(t, err, "what is known is known")
	_, stderr, err := harness.RunCommand(t, "zfstpl", "cleanup", "--if-needed", "--dataset", base.String(), "--address", d.Address)
	require.Error(t, err)
	assert.Contains(t, stderr, "suspended")

	disk.heal(t, p)
	require.Eventually(t, func() bool { return serving() == grpc_health_v1.HealthCheckResponse_SERVING }, harness.Patience, 100*time.Millisecond)
	_, err = sn.Prepare(ctx, "after", "")
	require.NoError(t, err)
	require.NoError(t, sn.Remove(ctx, "before"))
	require.NoError(t, sn.Cleanup(ctx))
	require.Eventually(t, func() bool { return strings.Contains(d.Log.String(), "pool is healthy again") }, harness.Patience, 50*time.Millisecond)
	base.Check(t)
}

// While a checkpoint keeps everything that is destroyed nothing is evicted for
// pressure in the pool, and it is said why; a layer that does not fit ends in an
// error all the same. When the checkpoint is gone they go.
func TestNothingIsEvictedForAPoolWithACheckpoint(t *testing.T) {
	t.Parallel()
	p := smallPool(t, 96*harness.MiB)
	base := p.NewBase(t)
	d := differ.New(t, base)
	require.NoError(t, d.Snapshotter.Close())
	d.Open(t, func(c *snapshotter.Config) { c.Pressure = 20 })
	said := &harness.ProgramLog{}
	logger := logrus.New()
	logger.SetOutput(said.Output(t))
	ctx := log.WithLogger(d.Context, logrus.NewEntry(logger))
	room := available(t, base.String())
	_, err := d.Pull(t, harness.ChainID(1), d.PushNoise(t, 1, room/3))
	require.NoError(t, err)
	out, err := exec.Command("zpool", "checkpoint", p.Name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	harness.RemoveAll(t, d.Snapshotter)
	require.NoError(t, d.Snapshotter.Cleanup(ctx))
	assert.Contains(t, base.Names(t), "/storage/"+harness.ChainID(1), "it would give nothing back")
	assert.Contains(t, said.String(), "the pool has a checkpoint")
	assert.Equal(t, 1, strings.Count(said.String(), "not evicting cached templates under pressure"), "once")
	require.NoError(t, d.Snapshotter.Cleanup(ctx))
	assert.Equal(t, 1, strings.Count(said.String(), "not evicting cached templates under pressure"), "once")

	if !testing.Short() { // to fill a pool to its end takes long
		_, mounts := d.PrepareLayer(t, harness.ChainID(2))
		_, err = d.Apply(d.Context, d.PushNoise(t, 2, room), mounts)
		require.True(t, errdefs.IsResourceExhausted(err), "%v", err)
		assert.ErrorContains(t, err, "tried twice")
	}

	out, err = exec.Command("zpool", "checkpoint", "-d", "-w", p.Name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	zpoolSync(t, base.String())
	require.NoError(t, d.Snapshotter.Cleanup(ctx))
	assert.NotContains(t, base.Names(t), "/storage/"+harness.ChainID(1), "now it gives something back")
	harness.RemoveAll(t, d.Snapshotter)
}
