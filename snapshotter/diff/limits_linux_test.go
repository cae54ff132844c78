package diff

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/randtree"
)

const gibibyte = 1 << 30

// sparseFile creates a file of a size without data.
func sparseFile(t testing.TB, name string, size int64) {
	t.Helper()
	f, err := os.Create(name)
	require.NoError(t, err)
	require.NoError(t, errors.Join(f.Truncate(size), f.Close()))
}

// capacity is a writer that accepts so many bytes.
type capacity int64

func (c *capacity) Write(b []byte) (int, error) {
	if *c -= capacity(len(b)); *c < 0 {
		return 0, errStore
	}
	return len(b), nil
}

// wholeLayer writes the layer of a whole directory, with the given limits or the
// normal ones.
func wholeLayer(t testing.TB, dir string, w io.Writer, of *limits) error {
	t.Helper()
	return between("", dir, func(to *tree) changes {
		l := newLayer(t.Context(), w, to, nil)
		if of != nil {
			l.limits = of
		}
		return l
	})
}

// A file that makes a layer larger than Apply allows is refused before any of it is
// written. The error has the file, its size and the limit.
func TestFileLargerThanALayerIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a")
	sparseFile(t, filepath.Join(dir, "lastlog"), 2<<40)
	left := capacity(1 << 20)
	err := wholeLayer(t, dir, &left, nil)
	require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
	assert.Greater(t, left, capacity(1<<20-8<<10), "at most two headers and one file are written")
	for _, part := range []string{`"lastlog"`, dir, "2199023255552 bytes", "1099511627776 bytes"} {
		assert.ErrorContains(t, err, part)
	}
}

// deepPath creates a file with a path of so many bytes. It uses the descriptor of the
// directory, because the kernel does not accept the whole path.
func deepPath(t testing.TB, root string, length int) (rel string) {
	t.Helper()
	dir, err := os.Open(root)
	require.NoError(t, err)
	defer dir.Close()
	fd := int(dir.Fd())
	for length-len(rel) > 256 {
		rel = path.Join(rel, strings.Repeat("d", 199))
		require.NoError(t, unix.Mkdirat(fd, rel, 0o755))
	}
	rel = path.Join(rel, strings.Repeat("f", length-len(rel)-1))
	require.Len(t, rel, length)
	file, err := unix.Openat(fd, rel, unix.O_CREAT|unix.O_WRONLY, 0o644)
	require.NoError(t, err)
	require.NoError(t, unix.Close(file))
	return rel
}

// setAttributes sets count attributes of size bytes.
func setAttributes(t testing.TB, name string, count, size int) {
	t.Helper()
	for i := range count {
		require.NoError(t, unix.Lsetxattr(name, fmt.Sprintf("user.%05d", i), bytes.Repeat([]byte{'x'}, size), 0))
	}
}

// smallDir returns the root of a file system that supports large attributes.
func smallDir(t testing.TB) string {
	t.Helper()
	needsRoot(t)
	return "/proc/self/fd/" + strconv.Itoa(int(smallFS(t).Fd()))
}

// A comparison refuses what Apply refuses. The error has the name and the reason.
func TestContentOverTheLimitsIsRefused(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		make    func(t *testing.T, dir string) (name string)
		of      limits
		message string
	}{
		"files that are too large together": {func(t *testing.T, dir string) string {
			sparseFile(t, dir+"/first", 60)
			sparseFile(t, dir+"/second", 60)
			return "second"
		}, limits{bytes: 100, headers: headerMemoryLimit}, "60 bytes"},
		"directories that need too much memory": {func(t *testing.T, dir string) string {
			mkdirAll(t, dir, "one/two/three")
			return "one/two/three"
		}, limits{bytes: layerLimit, headers: 3 * headerOverhead}, "memory"},
		"a directory whose attributes need too much memory": {func(t *testing.T, dir string) string {
			mkdirAll(t, dir, "one")
			setAttributes(t, dir+"/one", 1, 1000)
			return "one"
		}, limits{bytes: layerLimit, headers: 2 * headerOverhead}, "memory"},
		"attributes that are too large": {func(t *testing.T, dir string) string {
			write(t, dir, "file")
			setAttributes(t, dir+"/file", 17, 64<<10)
			return "file"
		}, *newLimits(), "attributes"},
		"attributes that are too large together with the rest of the header": {func(t *testing.T, dir string) string {
			write(t, dir, "file")
			setAttributes(t, dir+"/file", 16, (64<<10)-24)
			return "file"
		}, *newLimits(), "header"},
		"attributes whose names are too long": {func(t *testing.T, dir string) string {
			write(t, dir, "file")
			for i := range 300 {
				require.NoError(t, unix.Lsetxattr(dir+"/file", fmt.Sprintf("user.%0240d", i), nil, 0))
			}
			return "file"
		}, *newLimits(), "attributes"},
		"a path that is too long": {func(t *testing.T, dir string) string {
			return deepPath(t, dir, pathLimit+1)
		}, *newLimits(), "bytes"},
		"a whiteout name": {func(t *testing.T, dir string) string {
			write(t, dir, ".wh.x")
			return ".wh.x"
		}, *newLimits(), ".wh."},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := smallDir(t)
			name := c.make(t, dir)
			err := wholeLayer(t, dir, io.Discard, &c.of)
			require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
			assert.ErrorContains(t, err, strconv.Quote(name))
			assert.ErrorContains(t, err, c.message)
		})
	}
}

func mkdirAll(t testing.TB, dir, rel string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, rel), 0o755))
}

// Nodes that a test cannot create on a file system, but a damaged disk may have, are
// refused.
func TestImpossibleNodesAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "node")
	for what, n := range map[string]node{
		"a device number that an archive cannot hold": {mode: typeBlock, major: 1 << 24},
		"a negative size": {mode: typeRegular, size: -1},
		"an unknown type": {mode: 0o070000},
	} {
		l := newLayer(t.Context(), io.Discard, treeAt(t, dir), nil)
		err := l.changed(Added, "node", n)
		require.ErrorIs(t, err, errdefs.ErrFailedPrecondition, what)
		assert.ErrorContains(t, err, `"node"`, what)
	}
	for _, target := range []string{"", strings.Repeat("x", unix.PathMax)} {
		require.Error(t, checkTarget(target))
		require.Error(t, os.Symlink(target, filepath.Join(dir, "link")), "Apply cannot create it either")
	}
	require.NoError(t, checkTarget(strings.Repeat("x", unix.PathMax-1)))
}

// The deletion of a path that is too long is refused too.
func TestDeletedPathThatIsTooLongIsRefused(t *testing.T) {
	t.Parallel()
	lower, upper := t.TempDir(), t.TempDir()
	rel := deepPath(t, lower, pathLimit+1)
	mkdirAll(t, upper, path.Dir(rel))
	_, err := layerBetween(lower, upper)
	require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
	assert.ErrorContains(t, err, strconv.Quote(rel))
}

// An error of the store is not returned as a refusal of the layer.
func TestStoreErrorsAreNotFailedPrecondition(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a", "b")
	for fits := capacity(0); fits < 2000; fits += 100 {
		left := fits
		err := wholeLayer(t, dir, &left, nil)
		require.ErrorIs(t, err, errStore)
		require.False(t, errdefs.IsFailedPrecondition(err), "%v", err)
	}
}

// Apply accepts the extremes of everything that a comparison writes, however it is
// compressed, and reproduces them.
func TestApplyAcceptsTheLimitsOfALayer(t *testing.T) {
	t.Parallel()
	for what, fill := range map[string]func(t *testing.T, dir string){
		"paths": func(t *testing.T, dir string) { deepPath(t, dir, pathLimit) },
		"names": func(t *testing.T, dir string) { write(t, dir, strings.Repeat("x", 255), strings.Repeat("é", 127)) },
		"hard links to long paths": func(t *testing.T, dir string) {
			root, err := os.Open(dir)
			require.NoError(t, err)
			defer root.Close()
			rel := deepPath(t, dir, pathLimit)
			require.NoError(t, unix.Linkat(int(root.Fd()), rel, int(root.Fd()), "z", 0))
		},
		"targets": func(t *testing.T, dir string) {
			require.NoError(t, os.Symlink(strings.Repeat("x", unix.PathMax-1), dir+"/link"))
		},
		"attributes": func(t *testing.T, dir string) {
			write(t, dir, "file")
			setAttributes(t, dir+"/file", 15, 64<<10)
			require.NoError(t, unix.Lsetxattr(dir+"/file", "user."+strings.Repeat("n", 250), bytes.Repeat([]byte{0}, 60<<10), 0))
		},
		"owners": func(t *testing.T, dir string) {
			write(t, dir, "file")
			require.NoError(t, os.Lchown(dir+"/file", 1<<32-2, 1<<32-2))
		},
		"devices": func(t *testing.T, dir string) {
			require.NoError(t, unix.Mknod(dir+"/block", unix.S_IFBLK|0o600, int(unix.Mkdev(1<<12-1, 1<<20-1))))
			require.NoError(t, unix.Mknod(dir+"/char", unix.S_IFCHR|0o7777, int(unix.Mkdev(0, 0))))
		},
		"times": func(t *testing.T, dir string) {
			write(t, dir, "last", "first")
			require.NoError(t, os.Chtimes(dir+"/last", time.Now(), time.Unix(0, 1<<63-1)))
			require.NoError(t, os.Chtimes(dir+"/first", time.Now(), time.Unix(0, 1)))
		},
		"modes": func(t *testing.T, dir string) {
			write(t, dir, "file")
			require.NoError(t, unix.Chmod(dir+"/file", 0o7777))
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir, again := smallDir(t), smallDir(t)
			fill(t, dir)
			layer := layerOf(t, "", dir, nil)
			for media, c := range compressors {
				require.NoError(t, os.RemoveAll(again+"/all"))
				require.NoError(t, os.Mkdir(again+"/all", 0o755))
				compressed := packed(t, layer, func(w io.Writer) io.WriteCloser {
					z, err := c(w)
					require.NoError(t, err)
					return z
				})
				require.NoError(t, unpackInto(t, again+"/all", media, compressed))
				require.True(t, bytes.Equal(layer, layerOf(t, "", again+"/all", nil)), "the layer of the unpacked layer differs")
			}
		})
	}
}

// Apply refuses what exceeds the limit of a path or of attributes.
func TestApplyRefusesMoreThanTheLimits(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	for size, want := range map[int]error{pathLimit: nil, pathLimit + 1: unix.ENAMETOOLONG} {
		name := strings.Repeat(strings.Repeat("d", 199)+"/", 20) + strings.Repeat("f", size-4000)
		require.Len(t, name, size)
		err := unpackInto(t, t.TempDir(), ocispec.MediaTypeImageLayer, layerWith(t, tar.Header{Name: name, Typeflag: tar.TypeReg}))
		require.ErrorIs(t, err, want)
	}
	comment := "2000000 comment=" + strings.Repeat("x", 2000000-17) + "\n"
	err := unpackInto(t, t.TempDir(), ocispec.MediaTypeImageLayer, recorded(t, comment, "file"))
	require.ErrorIs(t, err, tar.ErrFieldTooLong)
}

// Times that an archive can hold and containerd's applier cannot set are not an error:
// it sets 1970 instead.
func TestImpossibleTimesAreReplaced(t *testing.T) {
	t.Parallel()
	dir, again := smallDir(t), t.TempDir()
	for name, at := range map[string]time.Time{
		"before": time.Unix(-1, 500), "long before": time.Unix(-1<<62, 0), "year 1": {}, "after": time.Unix(1<<62, 999_999_999),
	} {
		write(t, dir, name)
		times := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Sec: at.Unix(), Nsec: int64(at.Nanosecond())}}
		require.NoError(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/"+name, times, 0))
	}
	require.NoError(t, unpackInto(t, again, ocispec.MediaTypeImageLayer, layerOf(t, "", dir, nil)))
	for name, metadata := range read(t, again) {
		assert.Contains(t, metadata, " time 0.000000000 ", name)
	}
}

// Compare and Apply count the same, so that Apply accepts what Compare writes.
func TestCompareAndApplyCountTheSame(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree := randtree.New(dir, *seed)
	defer tree.Close()
	require.NoError(t, tree.Grow(100))
	var out bytes.Buffer
	written := newLimits()
	require.NoError(t, wholeLayer(t, dir, &out, written))
	applied := newLimits()
	for _, h := range headers(t, out.Bytes()) {
		h.Name = filepath.Clean(h.Name) // as containerd's applier does
		_, err := applied.pass(h)
		require.NoError(t, err)
	}
	assert.Less(t, written.headers, int64(headerMemoryLimit), "seed %d", *seed)
	assert.Less(t, written.bytes, int64(layerLimit), "seed %d", *seed)
	assert.Equal(t, written, applied, "seed %d", *seed)
}

// A layer keeps the names of an object with very many names without the whole path of
// each.
func TestLinksTakeLittleMemory(t *testing.T) {
	const count = 3000
	dir := t.TempDir()
	rel := deepPath(t, dir, pathLimit-50)
	in := path.Dir(rel)
	to := treeAt(t, dir)
	for i := range count {
		require.NoError(t, unix.Linkat(to.fd(), rel, to.fd(), fmt.Sprintf("%s/%d", in, i), 0))
	}
	l := newLayer(t.Context(), io.Discard, to, nil)
	n, err := to.stat(rel)
	require.NoError(t, err)
	before := heap()
	for i := range count {
		require.NoError(t, l.changed(Added, fmt.Sprintf("%s/%d", in, i), n))
	}
	after := heap()
	assert.Less(t, (after-before)/count, int64(1000), "bytes for each name in a path of %d", len(in))
	require.NoError(t, l.close())
}

// heap returns how many bytes are allocated.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
