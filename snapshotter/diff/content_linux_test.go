package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mebibyte = 1 << 20

// putAt writes random bytes at an offset of a file.
func putAt(t testing.TB, name string, at, size int64) {
	t.Helper()
	noise := make([]byte, size)
	_, err := rand.Read(noise)
	require.NoError(t, err)
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt(noise, at)
	require.NoError(t, err)
}

// readHere returns how many bytes this thread has read from files.
func readHere(t testing.TB) (bytes int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/io")
	require.NoError(t, err)
	_, err = fmt.Sscanf(string(text), "rchar: %d", &bytes)
	require.NoError(t, err)
	return bytes
}

// A layer has the content of a file, wherever the file has holes.
func TestLayerHasTheContentOfSparseFiles(t *testing.T) {
	t.Parallel()
	const small, large = contentSize, 5*mebibyte + 17
	for what, data := range map[string][][2]int64{
		"one hole":                 {{large, 0}},
		"data first":               {{large, 0}, {0, 4096}},
		"data last":                {{large, 0}, {large - 1, 1}},
		"data in the middle":       {{large, 0}, {2*mebibyte - 100, 200}},
		"no hole":                  {{large, 0}, {0, large}},
		"several ranges of data":   {{large, 0}, {contentSize - 1, 2}, {mebibyte, contentSize}, {3 * mebibyte, 1}, {4*mebibyte + 5, 70_000}},
		"a small file of one hole": {{small, 0}},
		"a small file":             {{small, 0}, {100, 7}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			name := filepath.Join(dir, "file")
			sparseFile(t, name, data[0][0])
			for _, d := range data[1:] {
				putAt(t, name, d[0], d[1])
			}
			want, err := os.ReadFile(name)
			require.NoError(t, err)
			r := tar.NewReader(bytes.NewReader(layerOf(t, "", dir, nil)))
			_, err = r.Next()
			require.NoError(t, err)
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(want, got))
		})
	}
}

// A hole is written without being read.
func TestHolesAreNotRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	sparseFile(t, name, 256*mebibyte)
	putAt(t, name, 100*mebibyte, 1000)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := readHere(t)
	var size counter
	require.NoError(t, wholeLayer(t, dir, &size, nil))
	assert.Less(t, readHere(t)-before, int64(mebibyte))
	assert.Greater(t, int64(size), int64(256*mebibyte))
}

// countdown is a context that ends after a number of calls of Err.
type countdown struct {
	context.Context
	calls int
}

func (c *countdown) Err() error {
	if c.calls--; c.calls < 0 {
		return context.Canceled
	}
	return nil
}

// A hole in both files is not compared, however large it is. A hole in only one of
// them is.
func TestCommonHolesAreNotCompared(t *testing.T) {
	t.Parallel()
	const size = 4 << 40
	for what, c := range map[string]struct {
		lower, upper []int64
		differ       bool
	}{
		"one hole in both":        {nil, nil, false},
		"data in the later one":   {nil, []int64{size / 2}, true},
		"data in the earlier one": {[]int64{0}, nil, true},
		"data at the end":         {nil, []int64{size - 1}, true},
		"data at other offsets":   {[]int64{mebibyte}, []int64{size / 2}, true},
		"the same data":           {[]int64{0, size / 2, size - 1}, []int64{0, size / 2, size - 1}, false},
		"other data":              {[]int64{0, size / 3}, []int64{0, size/3 + 1}, true},
	} {
		dir := t.TempDir()
		lower, upper := filepath.Join(dir, "lower"), filepath.Join(dir, "upper")
		for root, data := range map[string][]int64{lower: c.lower, upper: c.upper} {
			require.NoError(t, os.Mkdir(root, 0o755))
			sparseFile(t, root+"/file", size)
			f, err := os.OpenFile(root+"/file", os.O_WRONLY, 0)
			require.NoError(t, err)
			defer f.Close()
			for _, at := range data {
				_, err := f.WriteAt([]byte("x"), at)
				require.NoError(t, err)
			}
		}
		differ, err := (&comparison{ctx: &countdown{t.Context(), 100}, lower: treeAt(t, lower), upper: treeAt(t, upper)}).contentDiffers("file", size)
		require.NoError(t, err, what)
		assert.Equal(t, c.differ, differ, what)
	}
}

// onWrite is a writer that calls a function for each write.
type onWrite func(b []byte)

func (f onWrite) Write(b []byte) (int, error) { f(b); return len(b), nil }

// A cancelled comparison stops within a large file after the current piece, in a hole
// and in data. Until then the log knows the file.
func TestCancelledLayerStopsWithinAFile(t *testing.T) {
	t.Parallel()
	const size = 512 * gibibyte
	for what, data := range map[string]int64{"in a hole": 0, "in data": 64 * mebibyte} {
		dir := t.TempDir()
		write(t, dir, "a")
		sparseFile(t, filepath.Join(dir, "large"), size)
		putAt(t, filepath.Join(dir, "large"), 0, data)
		ctx, cancel := context.WithCancelCause(t.Context())
		var at current
		writes := 0
		err := between("", dir, func(to *tree) changes {
			l := newLayer(ctx, onWrite(func(b []byte) {
				if len(b) < contentSize {
					assert.Nil(t, at.fields(), "no large file has begun")
					return
				}
				if writes++; writes == 5 {
					assert.Equal(t, log.Fields{"file": "large", "size": int64(size), "done": int64(4 * contentSize)}, at.fields())
					cancel(io.ErrNoProgress)
				}
			}), to, nil)
			l.current = &at
			return l
		})
		require.ErrorIs(t, err, io.ErrNoProgress, what)
		assert.Equal(t, 5, writes, what)
		assert.Nil(t, at.fields(), what)
	}
}

// The log reports the progress of a layer at intervals, and the large file that is
// being written.
func TestLogReportsLargeFiles(t *testing.T) {
	t.Parallel()
	lines := make(chan string, 100)
	logger := logrus.New()
	logger.SetFormatter(&logrus.JSONFormatter{})
	logger.SetOutput(onWrite(func(b []byte) {
		select {
		case lines <- string(b):
		default:
		}
	}))
	ctx := log.WithLogger(t.Context(), logrus.NewEntry(logger))
	l := storedIn(nil)
	stop := l.report(ctx, "a-layer", time.Millisecond)
	assert.NotContains(t, <-lines, `"file"`)
	end := l.current.begin(&fileContent{rel: "var/log/lastlog", size: largeFile})
	for line := <-lines; ; line = <-lines {
		if strings.Contains(line, `"file"`) {
			assert.Contains(t, line, `"var/log/lastlog"`)
			assert.Contains(t, line, `"size":67108864`)
			assert.Contains(t, line, `"msg":"creating layer"`)
			break
		}
	}
	end()
	stop()
}

// A cancelled comparison stops within two large files, and while it reads and sorts a
// directory of many names.
func TestCancelledComparisonStopsWithinAFileOrDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 8*contentSize), 0o644))
	to := treeAt(t, dir)
	_, err := (&comparison{ctx: &countdown{t.Context(), 5}, lower: to, upper: to}).contentDiffers("large", 8*contentSize)
	require.ErrorIs(t, err, context.Canceled)

	for i := range 2000 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%0100d", i)), nil, 0o644))
	}
	_, err = to.readDir(&countdown{t.Context(), 3}, ".")
	require.ErrorIs(t, err, context.Canceled)

	names := make([]direntry, 1<<20)
	for i := range names {
		names[i].name = strconv.Itoa(i * 7919 % len(names))
	}
	require.ErrorIs(t, sortNames(&countdown{t.Context(), 2}, names), context.Canceled)
}

// A file that ends before its size is an error and not a shorter layer.
func TestFileShorterThanItsSizeIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, size := range []int64{10, 2 * mebibyte, 4*contentSize + 1} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), bytes.Repeat([]byte("x"), int(size-1)), 0o644))
		to := treeAt(t, dir)
		n, err := to.stat("file")
		require.NoError(t, err)
		n.size = size
		require.ErrorIs(t, newLayer(t.Context(), io.Discard, to, nil).changed(Added, "file", n), io.ErrUnexpectedEOF)
		_, err = (&comparison{ctx: t.Context(), lower: to, upper: to}).contentDiffers("file", size)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	}
}

// BenchmarkHoles writes a file of one hole as it is sent to containerd's store. The
// last two measure the digest and the tar alone.
func BenchmarkHoles(b *testing.B) {
	const size = 256 * mebibyte
	dir := b.TempDir()
	sparseFile(b, filepath.Join(dir, "file"), size)
	for media, c := range compressors {
		b.Run(media[strings.LastIndex(media, ".")+1:], func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				store := narrowStore{left: 2 * size}
				require.NoError(b, storedIn(&store).write(c, func(w io.Writer) error { return wholeLayer(b, dir, w, nil) }))
			}
		})
	}
	b.Run("digest", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			require.NoError(b, wholeLayer(b, dir, digest.Canonical.Digester().Hash(), nil))
		}
	})
	b.Run("discard", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			require.NoError(b, wholeLayer(b, dir, io.Discard, nil))
		}
	})
}
