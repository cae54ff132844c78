package integration

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
)

func TestInitIsIdempotentAndCompletesWhatACrashLeft(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	before := base.Names(t)

	stdout, stderr, err := harness.RunCommand(t, "zfstpl", "init", "--root", base.Root, base.String())
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, base.String()+" was ready")
	assert.Contains(t, stdout, "[proxy_plugins.zfstpl]")
	assert.Contains(t, stdout, `root = "`+base.Root+`"`)
	assert.Equal(t, before, base.Names(t))

	_, stderr, err = harness.RunCommand(t, "zfstpl", "init", "--root", "/elsewhere", base.String())
	require.Error(t, err, "containerd would look for space in the wrong place")
	assert.Contains(t, stderr, "zfs set mountpoint=/elsewhere "+base.String())

	require.NoError(t, base.Client.DestroySnapshot(ctx, base.Empty().Snapshot()))
	_, stderr, err = harness.RunCommand(t, "containerd-zfstpl-grpc", "--dataset", base.String(),
		"--address", filepath.Join(t.TempDir(), "run", "s"))
	require.Error(t, err)
	assert.Contains(t, stderr, "zfstpl init "+base.String())

	stdout, stderr, err = harness.RunCommand(t, "zfstpl", "init", "--root", base.Root, base.String())
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, base.String()+" is ready")
	harness.StartDaemon(t, base)
}

func TestInitRefusesAForeignDataset(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	_, stderr, err := harness.RunCommand(t, "zfstpl", "init", base.Storage())
	require.Error(t, err)
	assert.Contains(t, stderr, "is not a zfstpl base")
}

func TestLsShowsOwners(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	sn := d.Snapshotter(t)
	_, err := sn.Prepare(ctx, "default/1/work", "")
	require.NoError(t, err)
	require.NoError(t, sn.Commit(ctx, "default/2/built", "default/1/work"))
	_, err = sn.Prepare(ctx, "default/3/web", "default/2/built")
	require.NoError(t, err)

	stdout, stderr, err := harness.RunCommand(t, "zfstpl", "ls", "--dataset", base.String())
	require.NoError(t, err, stderr)
	assert.Regexp(t, `(?m)^empty .* base layer$`, stdout)
	assert.Regexp(t, `(?m)^└─ opaque-[0-9a-f]{16} .* snapshot default/built$`, stdout)
	assert.Regexp(t, `(?m)^   .─ web-[0-9a-f]{16} .* active default/web$`, stdout)
	assert.Regexp(t, `(?m)^   .─ work-[0-9a-f]{16} .* garbage, destroyed by the next cleanup$`, stdout)
}
