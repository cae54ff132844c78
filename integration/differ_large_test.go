package integration

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter/diff"
)

// sized is one of two sizes. Where the machine is emulated, ZFS makes some
// hundred files a second.
func sized(long, short int) int {
	if testing.Short() {
		return short
	}
	return long
}

// crowd makes a directory of so many empty files.
func crowd(t testing.TB, dir string, files int) {
	t.Helper()
	harness.Mkdirs(t, dir)
	for i := range files {
		require.NoError(t, harness.Touch(dir, crowded(i)))
	}
}

func crowded(i int) string { return fmt.Sprintf("file%07d", i) }

// Of a directory with very many names, a layer says what has changed and nothing
// else. ZFS is asked for little: to find the name of an object it may read the
// whole directory.
func TestLayerOfALargeDirectoryHasItsChangesOnly(t *testing.T) {
	t.Parallel()
	d := differ.New(t, pool.NewBase(t))
	files := sized(100_000, 2_000)
	began := time.Now()
	large := d.Template(t, "", func(root string) { crowd(t, filepath.Join(root, "large"), files) })
	t.Logf("%d files were made in %s", files, time.Since(began))

	began = time.Now()
	names, size := d.StreamNames(t, diff.Sides{Upper: d.View(t, large)[0].Source})
	t.Logf("from nothing: %d bytes in %s", size, time.Since(began))
	require.Len(t, names, files+1)
	assert.True(t, slices.IsSorted(names))
	assert.Equal(t, []string{"large/", "large/" + crowded(0)}, names[:2])

	for what, step := range map[string]int{"next to each other": 1, "far from each other": files / 40} {
		_, mounts := d.Prepare(t, large)
		var want []string
		harness.Mounted(t, mounts, func(root string) { want = disturb(t, filepath.Join(root, "large"), step) })
		view := d.View(t, large)
		d.Asked.Store(0)
		began := time.Now()
		assert.Equal(t, want, differ.TarNames(t, d.Layers(t, view, mounts)), what)
		t.Logf("%s: %d questions, %s for two layers", what, d.Asked.Load(), time.Since(began))
		// For the directory, once or twice for what is in it, and for what is gone.
		assert.LessOrEqual(t, d.Asked.Load(), int64(30), what)
	}
	harness.RemoveAll(t, d.Snapshotter)
}

// disturb adds, removes, renames and changes a few files, every step-th one, and
// returns what a layer says of that.
func disturb(t testing.TB, dir string, step int) (names []string) {
	t.Helper()
	at := func(i int) string { return crowded(i * step) }
	var gone []string
	for i := range 10 {
		added, renamed := at(i)+"-added", at(10+i)+"-renamed"
		require.NoError(t, harness.Touch(dir, added))
		require.NoError(t, os.Rename(filepath.Join(dir, at(10+i)), filepath.Join(dir, renamed)))
		require.NoError(t, os.Remove(filepath.Join(dir, at(20+i))))
		gone = append(gone, "large/.wh."+at(10+i), "large/.wh."+at(20+i))
		names = append(names, "large/"+added, "large/"+renamed)
	}
	for i := range 5 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, at(30+i)), []byte("changed"), 0o644))
		names = append(names, "large/"+at(30+i))
	}
	slices.Sort(gone)
	slices.Sort(names)
	return slices.Concat([]string{"large/"}, gone, names)
}

// A layer that is a thousandth of what it unpacks to fills the quota of its
// runtime and no more: that is an error, nothing is left of the attempt, and
// its neighbours have space.
func TestLayerThatFillsItsQuotaFailsAlone(t *testing.T) {
	onlyOnce(t, newerReleases, aQuota)
	t.Parallel()
	const quota, unpacked = 6 * harness.MiB, 256 * harness.MiB
	d := differ.New(t, pool.NewBase(t))
	desc := d.Push(t, ocispec.MediaTypeImageLayerZstd, func(w io.Writer) { bomb(t, w, unpacked) })
	require.Less(t, desc.Size, int64(unpacked/1000))

	mounts, err := d.Snapshotter.Prepare(d.Context, "bounded", "", withMaxSize(quota))
	require.NoError(t, err)
	_, sibling := d.Prepare(t, "")
	harness.Mounted(t, sibling, func(root string) {
		began := time.Now()
		_, err = d.Apply(d.Context, desc, mounts)
		t.Logf("it took %s: %v", time.Since(began), err)
		_, err := harness.Fill(filepath.Join(root, "noise"), 2*quota)
		require.NoError(t, err, "a sibling has room")
	})
	require.ErrorIs(t, err, syscall.EDQUOT)
	assert.True(t, errdefs.IsResourceExhausted(err), "%v", err)
	assert.ErrorContains(t, err, "/bomb: disk quota exceeded")
	d.RequireNothingPending(t, 0)
	space, err := d.Base.Client.Space(d.Context, mounts[0].Source)
	require.NoError(t, err)
	assert.InDelta(t, quota, space.Referenced, 5*harness.MiB) // as in TestQuotaBoundsWhatAContainerAdds

	require.NoError(t, d.Snapshotter.Remove(d.Context, "bounded"))
	require.NoError(t, d.Snapshotter.Cleanup(d.Context))
	for _, s := range d.Base.List(t) {
		assert.NotEqual(t, mounts[0].Source, s.Name, "it is gone")
	}
}

// bomb writes a layer of one file that zstd makes small, and ZFS does not: it
// compresses each record of a file alone, which is no longer than what repeats.
func bomb(t testing.TB, w io.Writer, size int) {
	t.Helper()
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
	require.NoError(t, err)
	layer := tar.NewWriter(z)
	require.NoError(t, layer.WriteHeader(&tar.Header{Name: "bomb", Mode: 0o644, Size: int64(size)}))
	noise := make([]byte, 128<<10)
	_, err = rand.NewChaCha8([32]byte{}).Read(noise)
	require.NoError(t, err)
	for range size / len(noise) {
		_, err := layer.Write(noise)
		require.NoError(t, err)
	}
	require.NoError(t, errors.Join(layer.Close(), z.Close()))
}

// A layer of very many entries is unpacked as it is read, in little memory.
//
// An emulated machine makes a hundred files of a layer in a second: a million would
// take it hours. So most entries delete what is not there, which is much faster,
// and the long form is of a fifth of a million. Of each file that is made,
// containerd's code remembers the path to the end, some 200 bytes: that is not
// bounded here.
//
// It does not run beside other tests, whose memory would be counted.
func TestLayerOfAMillionEntriesTakesLittleMemory(t *testing.T) {
	const perDir, files = 1000, 20
	dirs := sized(200, 20)
	d := differ.New(t, pool.NewBase(t))
	desc := d.Push(t, ocispec.MediaTypeImageLayerGzip, func(w io.Writer) { manyEntries(t, w, dirs, perDir, files) })
	_, mounts := d.Prepare(t, "")
	began := time.Now()
	peak := memoryOf(func() {
		_, err := d.Apply(d.Context, desc, mounts)
		require.NoError(t, err)
	})
	t.Logf("%d entries, %d bytes of layer: %s, %d KiB of memory", dirs*perDir, desc.Size, time.Since(began), peak>>10)
	assert.Less(t, peak, uint64(64*harness.MiB))
	d.RequireNothingPending(t, 0)
	harness.Mounted(t, mounts, func(root string) {
		for i := range dirs {
			list, err := os.ReadDir(filepath.Join(root, fmt.Sprint(i)))
			require.NoError(t, err)
			require.Len(t, list, files)
		}
	})
	harness.RemoveAll(t, d.Snapshotter)
}

// manyEntries writes a layer of directories with some files each, and whiteouts.
func manyEntries(t testing.TB, w io.Writer, dirs, perDir, files int) {
	t.Helper()
	z := gzip.NewWriter(w)
	layer := tar.NewWriter(z)
	write := func(h tar.Header, text string) {
		h.Size = int64(len(text))
		require.NoError(t, layer.WriteHeader(&h))
		_, err := io.WriteString(layer, text)
		require.NoError(t, err)
	}
	for i := range dirs {
		write(tar.Header{Name: fmt.Sprintf("%d/", i), Typeflag: tar.TypeDir, Mode: 0o755}, "")
		for j := range perDir {
			if j < files {
				write(tar.Header{Name: fmt.Sprintf("%d/%s", i, crowded(j)), Mode: 0o644}, "tiny")
			} else {
				write(tar.Header{Name: fmt.Sprintf("%d/.wh.%s", i, crowded(j))}, "")
			}
		}
	}
	require.NoError(t, errors.Join(layer.Close(), z.Close()))
}

// memoryOf returns by how much the memory in use grew at most while f ran.
func memoryOf(f func()) uint64 {
	inUse := func() uint64 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	runtime.GC()
	before := inUse()
	end, peak := make(chan struct{}), make(chan uint64)
	go func() {
		most := before
		for {
			select {
			case <-time.After(50 * time.Millisecond):
				most = max(most, inUse())
			case <-end:
				peak <- most
				return
			}
		}
	}()
	f()
	close(end)
	return <-peak - before
}

// A comparison ends as soon as no caller waits for it, whatever it compares, and
// leaves nothing. It does not run beside other tests: to take its snapshot away
// it waits for what they write.
func TestAComparisonEndsSoon(t *testing.T) {
	d := differ.New(t, pool.NewBase(t))
	// Not the rig's, for which no question may be in vain.
	d.Service = diff.New(d.Base.Base, d.Base.Client, d.Contents, d.Snapshotter)
	nothing := d.View(t, "")
	_, large := d.Prepare(t, "")
	harness.Mounted(t, large, func(root string) {
		f, err := os.Create(filepath.Join(root, "large"))
		require.NoError(t, err)
		require.NoError(t, errors.Join(f.Truncate(8<<30), f.Close()))
	})
	_, many := d.Prepare(t, "")
	harness.Mounted(t, many, func(root string) { crowd(t, root, sized(30_000, 2_000)) })
	d.RequireCancellable(t, "a large file", nothing, large, ocispec.MediaTypeImageLayerGzip)
	d.RequireCancellable(t, "a large directory", nothing, many, ocispec.MediaTypeImageLayer)
	harness.RemoveAll(t, d.Snapshotter)
}
