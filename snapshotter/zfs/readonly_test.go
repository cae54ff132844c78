package zfs

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// refused is how the kernel refuses channel programs in a pool that is imported
// read-only.
var refused = result{Match: "^program", Status: 1, Err: "Channel program execution failed: pool is read-only\n"}

func TestReadOnlyPoolIsListedWithoutPrograms(t *testing.T) {
	t.Parallel()
	f := newFake(t, refused,
		result{Match: "^list.*filesystem", Out: someFilesystems + "POOL/base/bare\t-\t3\t8\t1700000000\t0\t0\tlegacy\n"},
		result{Match: "^list.*snapshot", Out: "POOL/base/a@zz\nPOOL/base/a@extracted\nPOOL/base/unknown@x\n"},
		result{Match: "^get.*-s local,received", Out: "POOL/base\tzfstpl:version\t1\nPOOL/base\tmountpoint\t/srv\n" +
			"POOL/base/a\tzfstpl:odd\té\nPOOL/base/a\tzfstpl:two\tx\ty\nPOOL/base/a\tother:thing\tx\n"})
	c, err := Open(t.Context(), f.pool+"/base", "zfstpl:", Command)
	require.NoError(t, err)
	assert.True(t, c.ReadOnly())
	list, err := c.List(t.Context(), f.pool+"/base")
	require.NoError(t, err)
	slices.SortFunc(list, func(a, b Dataset) int { return strings.Compare(a.Name, b.Name) })
	require.Len(t, list, 3, "including the one without properties and snapshots")
	assert.Equal(t, map[string]string{"zfstpl:version": "1"}, list[0].Props)
	assert.Equal(t, map[string]string{"zfstpl:odd": "?"}, list[1].Props)
	assert.Equal(t, []string{"extracted", "zz"}, slices.Sorted(slices.Values(list[1].Snapshots)))
	assertKind(t, ErrReadOnly, c.Apply(t.Context(), Set(f.pool+"/base", "a:b", "c")))
}

// A read-only pool does not change, so no temporary snapshot is needed.
func TestReadOnlyPoolNeedsNoTemporarySnapshot(t *testing.T) {
	t.Parallel()
	f := newFake(t, refused)
	c, err := Open(t.Context(), f.pool, "zfstpl:", Command)
	require.NoError(t, err)
	f.calls(t)
	temporary, err := c.TakeTemporary(t.Context(), f.pool+"/a")
	require.NoError(t, err)
	assert.Equal(t, f.pool+"/a", temporary.Snapshot)
	require.NoError(t, temporary.Close())
	assert.Empty(t, f.calls(t))
}
