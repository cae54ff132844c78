package main

import (
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/diff"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// A snapshot is compared with its parent, whichever of its names is given.
func TestSnapshotIsComparedWithItsParent(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/z")
	require.NoError(t, err)
	const storage, run = "tank/z/storage/", "tank/z/runtime/web-0123456789abcdef"
	const garbage = "tank/z/runtime/old-0123456789abcdef"
	const called = "tank/z/runtime/empty-0123456789abcdef"
	a, b := storage+chain("a"), storage+chain("b")
	entries := []inspect.Entry{
		{Dataset: a, Parent: storage + "empty", State: inspect.Used, Records: records(
			info(snapshots.KindCommitted, "default/1/"+chain("a")))},
		{Dataset: b, Parent: a, State: inspect.Used, Records: records(
			info(snapshots.KindCommitted, "default/2/"+chain("b")), info(snapshots.KindView, "default/5/look"))},
		{Dataset: run, Parent: b, State: inspect.Used, Records: records(info(snapshots.KindActive, "default/3/web"))},
		{Dataset: garbage, Parent: b, State: inspect.Garbage},
		{Dataset: storage + "empty", State: inspect.Used},
		{Dataset: called, Parent: a, State: inspect.Used, Records: records(info(snapshots.KindActive, "default/7/empty"))},
	}
	for name, want := range map[string]diff.Sides{
		"web":                  {Lower: b + "@extracted", Upper: run},
		"default/3/web":        {Lower: b + "@extracted", Upper: run},
		run:                    {Lower: b + "@extracted", Upper: run},
		"web-0123456789abcdef": {Lower: b + "@extracted", Upper: run},
		chain("b"):             {Lower: a + "@extracted", Upper: b + "@extracted"},
		b:                      {Lower: a + "@extracted", Upper: b + "@extracted"},
		"look":                 {Lower: b + "@extracted", Upper: b + "@extracted"},
		"empty":                {Lower: a + "@extracted", Upper: called},
		garbage:                {Lower: b + "@extracted", Upper: garbage},
	} {
		sides, err := sidesOf(base, entries, name, "")
		require.NoError(t, err, name)
		assert.Equal(t, want, sides, name)
	}
	sides, err := sidesOf(base, entries, "web", chain("a"))
	require.NoError(t, err)
	assert.Equal(t, diff.Sides{Lower: a + "@extracted", Upper: run}, sides)
	_, err = sidesOf(base, entries, "none", "")
	require.ErrorContains(t, err, `snapshot "none"`)
	require.ErrorIs(t, err, zfs.ErrNotFound)
}
