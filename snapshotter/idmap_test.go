package snapshotter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// idmapLabels sets the labels of a container in a user namespace.
func idmapLabels(uids, gids string) snapshots.Opt {
	return snapshots.WithLabels(map[string]string{
		snapshots.LabelSnapshotUIDMapping: uids, snapshots.LabelSnapshotGIDMapping: gids,
	})
}

// The labels of a user namespace become mount options, also after a restart.
func TestIDMappingBecomesMountOptions(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	const uids, gids = "0:100000:65536", "0:1000:1,1:200000:65535"
	want := []string{"uidmap=" + uids, "gidmap=" + gids}

	mounts := s.prepare("web", "base", idmapLabels(uids, gids))
	web := s.dataset("web")
	assert.Equal(t, []mount.Mount{{Type: "zfs", Source: web, Options: want}}, mounts)
	look := s.view("look", "base", idmapLabels(uids, gids))
	assert.Equal(t, []mount.Mount{{Type: "zfs", Source: s.templateOf("base") + "@extracted", Options: append([]string{"ro"}, want...)}}, look)
	s.prepare("empty", "", idmapLabels(uids, gids))
	s.restart()
	for key, want := range map[string][]mount.Mount{"web": mounts, "look": look} {
		got, err := s.sn.Mounts(s.ctx, key)
		require.NoError(t, err)
		assert.Equal(t, want, got, "after a restart")
	}
	// Its commit is not mapped.
	s.commit("saved", "web", idmapLabels(uids, gids))
	assert.Nil(t, s.prepare("next", "saved")[0].Options)
	s.requireInvariants()
}

// The labels of an extraction, which can come from the image, are ignored.
func TestExtractionIgnoresIDMapping(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	for i, opts := range [][]snapshots.Opt{
		{idmapLabels("0:1:1", "0:1:1")}, {idmapLabels("what", "-1")}, {snapshots.WithLabels(map[string]string{
			snapshots.LabelSnapshotRef: chain("a"), snapshots.LabelSnapshotUIDMapping: "0:0:0"})},
	} {
		key := fmt.Sprintf("default/%d/extract-1-x %s", i+1, chain("a"))
		assert.Nil(t, s.prepare(key, "", opts...)[0].Options)
	}
	assert.Nil(t, s.prepare("default/9/x", "", ref(chain("a")), idmapLabels("what", "0:0:0"))[0].Options)
	s.requireInvariants()
}

// A malformed or unsafe mapping is rejected before any change.
func TestMalformedIDMappingIsRejected(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.cleanup()
	before, pool := dump(s.sn), s.datasets()
	calls := s.pool.Count(zfsfake.Before(zfsfake.Call))
	const good = "0:100000:65536"
	many := good
	for i := range maxRanges {
		many += fmt.Sprintf(",%d:%d:1", 1_000_000+i, 2_000_000+i)
	}
	for _, bad := range []string{
		"", ",", ":", "::", "0", "0:1", "0:1:1:1", "0:1:1,", ",0:1:1", "a:b:c", "0:0:0", "-1:-1:-2", "0:-1:1", "+0:1:1", " 0:1:1", "0:1:1 ",
		"0x0:1:1", "0:1_0:1", "0:1:1\n", "0:1:4294967295", "0:4294967295:1", "0:4294967294:2", "4294967296:1:1", "0:18446744073709551616:1",
		"0:1:99999999999999999999", "0:1:1,0:2:1", "0:1:10,5:20:1", "0:1:1,1:1:1", "0:10:5,5:14:2", "1:1:1", "5:100000:65536",
		"0:1:1,ro", "0:1:1,gidmap=0:0:1", "0:1:1\x00", "٠:1:1", strings.Repeat("0:1:1,", 100_000), many,
	} {
		for _, labels := range []snapshots.Opt{idmapLabels(bad, good), idmapLabels(good, bad)} {
			err := second(s.sn.Prepare(s.ctx, "web", "base", labels))
			require.ErrorIs(t, err, errdefs.ErrInvalidArgument, "%.60q", bad)
			assert.Less(t, len(err.Error()), 1000)
			require.ErrorIs(t, second(s.sn.View(s.ctx, "web", "base", labels)), errdefs.ErrInvalidArgument, "%.60q", bad)
		}
	}
	assert.Zero(t, calls())
	assert.Equal(t, before, dump(s.sn))
	assert.Equal(t, pool, s.datasets())

	s.prepare("web", "base", idmapLabels(good, good))
	_, err := s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{snapshots.LabelSnapshotUIDMapping: good}})
	assert.ErrorIs(t, err, errdefs.ErrInvalidArgument, "both labels are required")
	for _, fine := range []string{"0:0:4294967295", "0:0:1", "1:2:3,0:1:1", many[:len(good)], "0:4294967293:1"} {
		assert.NoError(t, checkIDMap(fine), fine)
	}
	s.requireInvariants()
}

// If the mapping in a record is malformed, Mounts returns an error.
func TestCorruptIDMappingIsNotMounted(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "", idmapLabels("0:100000:1", "0:100000:1"))
	s.pool.EditFS(s.dataset("web"), func(fs *zfsfake.FS) {
		for prop, value := range fs.Props {
			fs.Props[prop] = strings.ReplaceAll(value, "0:100000:1", "0:0:0")
		}
	})
	s.restart()
	_, err := s.sn.Mounts(s.ctx, "web")
	assert.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	s.remove("web")
	s.requireInvariants()
}

// A containerd whose configuration lacks the capability remap-ids changes the owners itself
// and sets the labels too. Such a snapshot and its children are not mapped again, also after
// a restart.
func TestRemappedSnapshotIsNotMappedAgain(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("default/1/base", "", "b;")
	const good = "0:100000:65536"
	id := "sha256:" + strings.Repeat("e", 64)
	s.prepare("default/2/"+id+"-remap", "default/1/base")
	s.commit("default/3/"+id, "default/2/"+id+"-remap")
	assert.Nil(t, s.prepare("default/4/web", "default/3/"+id, idmapLabels(good, good))[0].Options)
	assert.Equal(t, []string{"ro"}, s.view("default/5/look", "default/3/"+id, idmapLabels(good, good))[0].Options)
	s.restart()
	mounts, err := s.sn.Mounts(s.ctx, "default/4/web")
	require.NoError(t, err)
	assert.Nil(t, mounts[0].Options)
	s.commit("default/6/saved", "default/4/web")
	assert.Nil(t, s.prepare("default/7/next", "default/6/saved", idmapLabels(good, good))[0].Options)
	assert.Len(t, s.prepare("default/8/other", "default/1/base", idmapLabels(good, good))[0].Options, 2)
	s.requireInvariants()
}
