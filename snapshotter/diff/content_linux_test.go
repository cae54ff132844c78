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

// putAt writes bytes that are not zero at an offset of a file.
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

// What is in a file is in its layer, wherever its holes are.
func TestHolesInALayer(t *testing.T) {
	t.Parallel()
	const small, large = contentSize, 5*mebibyte + 17
	for what, data := range map[string][][2]int64{
		"nothing but a hole":      {{large, 0}},
		"data first":              {{large, 0}, {0, 4096}},
		"data last":               {{large, 0}, {large - 1, 1}},
		"data in the middle":      {{large, 0}, {2*mebibyte - 100, 200}},
		"data everywhere":         {{large, 0}, {0, large}},
		"data here and there":     {{large, 0}, {contentSize - 1, 2}, {mebibyte, contentSize}, {3 * mebibyte, 1}, {4*mebibyte + 5, 70_000}},
		"a small file of nothing": {{small, 0}},
		"a small file":            {{small, 0}, {100, 7}},
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
func TestAHoleIsNotRead(t *testing.T) {
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

// patient is a context that ends when it has been looked at so many times.
type patient struct {
	context.Context
	looks int
}

func (p *patient) Err() error {
	if p.looks--; p.looks < 0 {
		return context.Canceled
	}
	return nil
}

// What is a hole in both files is not compared, however large it is. What is one in
// one of them only is.
func TestHolesAreNotCompared(t *testing.T) {
	t.Parallel()
	const size = 4 << 40
	for what, c := range map[string]struct {
		lower, upper []int64
		differ       bool
	}{
		"nothing but holes":       {nil, nil, false},
		"data in the later one":   {nil, []int64{size / 2}, true},
		"data in the earlier one": {[]int64{0}, nil, true},
		"data at the end":         {nil, []int64{size - 1}, true},
		"data at other places":    {[]int64{mebibyte}, []int64{size / 2}, true},
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
		differ, err := (&comparison{ctx: &patient{t.Context(), 100}, lower: treeAt(t, lower), upper: treeAt(t, upper)}).contentDiffers("file", size)
		require.NoError(t, err, what)
		assert.Equal(t, c.differ, differ, what)
	}
}

// onWrite calls a function for each write, and takes it.
type onWrite func(b []byte)

func (f onWrite) Write(b []byte) (int, error) { f(b); return len(b), nil }

// A comparison that is cancelled while it writes a large file ends with the piece that
// it is about, whether that is a hole or not. Until then the log knows the file.
func TestACancelledLayerEndsInTheMiddleOfAFile(t *testing.T) {
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
					assert.Nil(t, at.fields(), "no file is large yet")
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

// The log says at intervals how far a layer is, and which large file it is at.
func TestTheLogNamesALargeFile(t *testing.T) {
	t.Parallel()
	said := make(chan string, 100)
	logger := logrus.New()
	logger.SetFormatter(&logrus.JSONFormatter{})
	logger.SetOutput(onWrite(func(b []byte) {
		select {
		case said <- string(b):
		default:
		}
	}))
	ctx := log.WithLogger(t.Context(), logrus.NewEntry(logger))
	l := storedIn(nil)
	stop := l.report(ctx, "a-layer", time.Millisecond)
	assert.NotContains(t, <-said, `"file"`)
	end := l.current.begin(&fileContent{rel: "var/log/lastlog", size: largeFile})
	for line := <-said; ; line = <-said {
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

// A comparison that is cancelled while it compares two large files, or while it reads a
// directory of many names and puts them in order, ends there.
func TestACancelledComparisonEndsInTheMiddle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 8*contentSize), 0o644))
	to := treeAt(t, dir)
	_, err := (&comparison{ctx: &patient{t.Context(), 5}, lower: to, upper: to}).contentDiffers("large", 8*contentSize)
	require.ErrorIs(t, err, context.Canceled)

	for i := range 2000 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%0100d", i)), nil, 0o644))
	}
	_, err = to.readDir(&patient{t.Context(), 3}, ".")
	require.ErrorIs(t, err, context.Canceled)

	names := make([]direntry, 1<<20)
	for i := range names {
		names[i].name = strconv.Itoa(i * 7919 % len(names))
	}
	require.ErrorIs(t, sortNames(&patient{t.Context(), 2}, names), context.Canceled)
}

// A file that ends before its size is an error, and no layer of fewer bytes.
func TestAFileThatIsShorterThanItsSize(t *testing.T) {
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

// BenchmarkHoles writes a file of one hole, as it goes to containerd's store, and what
// of that is the digest.
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
	b.Run("nothing", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			require.NoError(b, wholeLayer(b, dir, io.Discard, nil))
		}
	})
}
