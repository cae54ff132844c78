package zfs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/ioctl"
)

// vanishing is a kernel in which some file systems are destroyed between the two
// phases of a listing.
type vanishing struct {
	found     []ioctl.Dataset
	destroyed []string
}

func (v vanishing) ListFilesystems(context.Context, string) ([]ioctl.Dataset, error) {
	return v.found, nil
}

func (v vanishing) ListSnapshots(_ context.Context, name string) ([]string, error) {
	if slices.Contains(v.destroyed, name) {
		return nil, &ioctl.Error{Op: "list snapshots", Dataset: name, Err: syscall.ENOENT}
	}
	return []string{"extracted"}, nil
}

func filesystem(name, latest string) (d ioctl.Dataset) {
	d.Name, d.Latest = name, latest
	return d
}

func namesOf(list []Dataset) string {
	var names []string
	for _, d := range list {
		names = append(names, strings.TrimPrefix(d.Name, "tank/z/"))
	}
	return strings.Join(names, " ")
}

// Whichever file systems are destroyed during a listing, all others are listed,
// including those without snapshots.
func TestDestroyedFilesystemHidesNoOther(t *testing.T) {
	t.Parallel()
	kernel := vanishing{found: []ioctl.Dataset{filesystem("tank/z", "")}}
	for _, name := range []string{"t1", "t2", "t3"} {
		kernel.found = append(kernel.found, filesystem("tank/z/"+name, "extracted"))
	}
	for _, name := range []string{"r1", "r2"} {
		kernel.found = append(kernel.found, filesystem("tank/z/"+name, ""))
	}
	for destroyed, want := range map[string]string{
		"":         "tank/z t1 t2 t3 r1 r2",
		"t1":       "tank/z t2 t3 r1 r2",
		"t2":       "tank/z t1 t3 r1 r2",
		"t3":       "tank/z t1 t2 r1 r2",
		"t2 t3":    "tank/z t1 r1 r2",
		"t1 t2 t3": "tank/z r1 r2",
	} {
		t.Run(fmt.Sprintf("%q", destroyed), func(t *testing.T) {
			t.Parallel()
			kernel := kernel
			for _, name := range strings.Fields(destroyed) {
				kernel.destroyed = append(kernel.destroyed, "tank/z/"+name)
			}
			list, err := listFrom(t.Context(), kernel, "tank/z", "zfstpl:")
			require.NoError(t, err)
			assert.Equal(t, want, namesOf(list))
		})
	}
}

// If the root is destroyed, List returns an error and not an empty or shorter list.
func TestDestroyedRootIsNotFound(t *testing.T) {
	t.Parallel()
	kernel := vanishing{found: []ioctl.Dataset{filesystem("tank/z", "daily"), filesystem("tank/z/r1", "")}, destroyed: []string{"tank/z"}}
	list, err := listFrom(t.Context(), kernel, "tank/z", "zfstpl:")
	assertKind(t, ErrNotFound, err)
	assert.Nil(t, list)
	f := newFake(t, result{Match: "^list", Out: someFilesystems}, result{Match: "^program", Out: `{"return":{"POOL/base/a":{"props":{}}}}`})
	list, err = f.client(true).List(t.Context(), f.pool+"/base")
	assertKind(t, ErrNotFound, err)
	assert.Nil(t, list)
}

// The command lists a file system that the program, which runs after it, no longer
// finds. It is omitted: listed without properties it would look like the result of a
// crash.
func TestFilesystemDestroyedBetweenCommandAndProgramIsOmitted(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^list", Out: someFilesystems +
		"POOL/base/b\t-\t3\t8\t1700000000\t0\t0\tlegacy\n"},
		result{Match: "^program", Out: `{"return":{"POOL/base":{"props":{},"snapshots":{}},"POOL/base/b":{"props":{"zfstpl:x":"y"}}}}`})
	list, err := f.client(true).List(t.Context(), f.pool+"/base")
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Equal(t, f.pool+"/base", list[0].Name)
	assert.Equal(t, f.pool+"/base/b", list[1].Name)
	assert.Equal(t, "y", list[1].Props["zfstpl:x"])
}
