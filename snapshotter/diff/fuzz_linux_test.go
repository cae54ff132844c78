package diff

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/randtree"
)

// FuzzApply asserts that unpacking any bytes as a layer ends in time, returns nil or
// an error that is not a panic, and changes nothing outside of the root.
func FuzzApply(f *testing.F) {
	needsRoot(f)
	layers := seedLayers(f)
	for i, layer := range layers {
		f.Add(uint8(0), layer)
		f.Add(uint8(i), layer)
		f.Add(uint8(i), layer[:len(layer)/2])
	}
	for how := range uint8(disguises) { // compressed, with the right and with wrong media types
		for _, compressed := range []uint8{4, 5} {
			_, layer := disguised(f, compressed, layers[1])
			f.Add(how, layer)
		}
	}
	f.Fuzz(func(t *testing.T, how uint8, layer []byte) {
		if len(layer) > 64<<10 {
			t.Skip("a layer that unpacks to a thousand times its size takes too long")
		}
		media, layer := disguised(t, how, layer)
		all := smallFS(t)
		dir := "/proc/self/fd/" + strconv.Itoa(int(all.Fd()))
		write(t, dir, "outside/victim", "outside/dir/in", "root/before/file")
		outside := read(t, dir+"/outside")
		before, err := os.Lstat(dir + "/root")
		require.NoError(t, err)

		began := time.Now()
		if err := unpackWithin(dir+"/root", media, layer); err != nil {
			require.False(t, strings.HasPrefix(err.Error(), "unpacking: panic"), "%v", err)
		}
		require.Less(t, time.Since(began), 10*time.Second)

		require.Empty(t, randtree.Differences(outside, read(t, dir+"/outside")))
		names, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Len(t, names, 2, "nothing is created next to the root")
		after, err := os.Lstat(dir + "/root")
		require.NoError(t, err)
		require.True(t, os.SameFile(before, after))
	})
}

// disguises is the number of ways to present bytes as a layer.
const disguises = 6

// disguised returns a media type, and bytes as a layer of that type: unchanged or
// compressed.
func disguised(t testing.TB, how uint8, b []byte) (media string, layer []byte) {
	t.Helper()
	switch how % disguises {
	case 0:
		return ocispec.MediaTypeImageLayer, b
	case 1:
		return ocispec.MediaTypeImageLayerGzip, b
	case 2:
		return ocispec.MediaTypeImageLayerZstd, b
	case 3:
		return "application/vnd.docker.image.rootfs.diff.tar", b // its compression is detected
	case 4:
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, err := w.Write(b)
		require.NoError(t, errors.Join(err, w.Close()))
		return ocispec.MediaTypeImageLayerGzip, out.Bytes()
	}
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	defer w.Close()
	return ocispec.MediaTypeImageLayerZstd, w.EncodeAll(b, nil)
}

// seedLayers returns a layer with each type of file, and some hostile ones.
func seedLayers(f *testing.F) (list [][]byte) {
	f.Helper()
	add := func(entries ...tar.Header) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range entries {
			h.Size = 0
			if h.Typeflag == tar.TypeReg {
				h.Size = 4
			}
			require.NoError(f, w.WriteHeader(&h))
			_, err := io.WriteString(w, "evil"[:h.Size])
			require.NoError(f, err)
		}
		require.NoError(f, w.Close())
		list = append(list, b.Bytes())
	}
	add()
	add(tar.Header{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "dir/file", Typeflag: tar.TypeReg, Mode: 0o4755},
		tar.Header{Name: "dir/hard", Typeflag: tar.TypeLink, Linkname: "dir/file"},
		tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "dir/file"},
		tar.Header{Name: "fifo", Typeflag: tar.TypeFifo}, tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		tar.Header{Name: "before/.wh.file", Typeflag: tar.TypeReg}, tar.Header{Name: "before/.wh..wh..opq", Typeflag: tar.TypeReg})
	add(tar.Header{Name: strings.Repeat("long/", 60) + "file", Typeflag: tar.TypeReg, Format: tar.FormatPAX, ModTime: time.Unix(1, 5), PAXRecords: map[string]string{
		xattrKey + "user.a": "value", xattrKey + "security.capability": "\x01\x00\x00\x02" + strings.Repeat("\x00", 16), xattrKey + accessACL: modeAsACL(0o640)}})
	for _, name := range []string{"../outside/victim", "/../outside/.wh.victim", "up/outside/victim", "up/outside/.wh..wh..opq", "abs/new", ".wh..", ".wh..."} {
		for _, flag := range []byte{tar.TypeReg, tar.TypeDir, tar.TypeLink, tar.TypeSymlink} {
			add(tar.Header{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../"}, tar.Header{Name: "abs", Typeflag: tar.TypeSymlink, Linkname: "/outside"},
				tar.Header{Name: name, Typeflag: flag, Linkname: "../outside/victim"})
		}
	}
	return append(list, sparse(f))
}

// sparse returns a layer of a file with four bytes and a hole of an exabyte. The
// format allows that, but package tar does not write it.
func sparse(f testing.TB) []byte {
	f.Helper()
	var records string
	for _, r := range []string{"GNU.sparse.major=0", "GNU.sparse.minor=1", "GNU.sparse.name=sparse", "GNU.sparse.numblocks=1",
		"GNU.sparse.size=1152921504606846976", "GNU.sparse.map=0,4"} {
		records += strconv.Itoa(len(r)+4) + " " + r + "\n" // a length of two digits, and itself
	}
	return recorded(f, records, "sparse")
}

// recorded returns a layer of a file with four bytes and the given PAX records.
func recorded(t testing.TB, records, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "records", Size: int64(len(records))}))
	_, err := io.WriteString(w, records)
	require.NoError(t, err)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Size: 4, Mode: 0o644}))
	_, err = io.WriteString(w, "evil")
	require.NoError(t, errors.Join(err, w.Close()))
	const typeAt, sumAt = 156, 148 // in a header, whose sum is six octal digits
	layer := b.Bytes()
	var sum int
	_, err = fmt.Sscanf(string(layer[sumAt:sumAt+6]), "%o", &sum)
	require.NoError(t, err)
	sum += tar.TypeXHeader - int(layer[typeAt])
	layer[typeAt] = tar.TypeXHeader
	copy(layer[sumAt:], fmt.Sprintf("%06o", sum))
	return layer
}

// A layer of three kilobytes that declares an exabyte is refused at once.
func TestExabyteOfHolesIsRefused(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	dir := t.TempDir()
	err := unpackWithin(dir, ocispec.MediaTypeImageLayer, sparse(t))
	require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	require.ErrorContains(t, err, "sparse")
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, list)
}

// unpackWithin unpacks a layer as Apply does, with a timeout.
func unpackWithin(dir, media string, layer []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	s, err := uncompress(ctx, ocispec.Descriptor{MediaType: media}, bytes.NewReader(layer), diff.ApplyConfig{})
	if err != nil {
		return err
	}
	defer s.Close()
	return jailed(root, func() error { return s.unpack(ctx) })
}

// smallFS returns the root of a small file system that is mounted in no namespace. It
// exists until the file is closed.
func smallFS(t testing.TB) *os.File {
	t.Helper()
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fs)
	for _, option := range [][2]string{{"size", "4m"}, {"nr_inodes", "4000"}} {
		require.NoError(t, unix.FsconfigSetString(fs, option[0], option[1]))
	}
	require.NoError(t, unix.FsconfigCreate(fs))
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(mnt)
	root, err := unix.Openat(mnt, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	file := os.NewFile(uintptr(root), "tmpfs")
	t.Cleanup(func() { file.Close() })
	return file
}

// FuzzNames asserts that a layer reproduces a file with any name and of any type,
// reports it by that name and deletes it; or that it refuses the name because of its
// meaning in a layer.
func FuzzNames(f *testing.F) {
	for _, name := range []string{
		"a", " ", "-", "...", ".w", ".wh", "wh.", ".wh.", ".wh.a", ".wh..wh..opq", ".wh..opq", "a.wh.b", "\n", "new\nline", "\t", "\\", "\"", "'",
		"\xff\xfe", "\u202e", "é", "e\u0301", "a=b", "1 path=x\n", "PaxHeaders.0", "././@LongLink", "*", "\x7f", "\x01", "~", "COM1",
		strings.Repeat("x", 99), strings.Repeat("x", 100), strings.Repeat("é", 127), strings.Repeat("x", 255),
	} {
		f.Add(uint8(len(name)), name)
		f.Add(uint8(len(name)/2), name)
	}
	f.Fuzz(func(t *testing.T, kind uint8, name string) {
		if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") || name == "sibling" || name == "other" {
			t.Skip("not the name of a file, or the name of another one here")
		}
		dir := t.TempDir()
		empty, full, again := filepath.Join(dir, "empty"), filepath.Join(dir, "full"), filepath.Join(dir, "again")
		write(t, empty, "in/sibling")
		write(t, full, "in/sibling")
		if err := makeKind(filepath.Join(full, "in"), name, kind); errors.Is(err, syscall.EILSEQ) || errors.Is(err, syscall.EINVAL) {
			t.Skip("a name that this file system refuses: " + err.Error())
		} else {
			require.NoError(t, err)
		}
		layer, err := layerBetween("", full)
		if strings.HasPrefix(name, whiteout) {
			require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
			_, err = layerBetween(full, empty)
			require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
			return
		}
		require.NoError(t, err)
		require.NoError(t, os.Mkdir(again, 0o755))
		apply(t, layer, again)
		require.Empty(t, randtree.Differences(read(t, full), read(t, again)))
		requireReported(t, empty, full, "/in/"+name)

		layer, err = layerBetween(full, empty)
		require.NoError(t, err)
		apply(t, layer, again)
		_, err = os.Lstat(filepath.Join(again, "in", name))
		require.ErrorIs(t, err, os.ErrNotExist, "deleted")
		_, err = os.Lstat(filepath.Join(again, "in/sibling"))
		require.NoError(t, err)
	})
}

// kinds is the number of types that makeKind knows.
const kinds = 6

// makeKind creates a file of one of several types with a name, or with the name as its
// target.
func makeKind(dir, name string, kind uint8) error {
	path := filepath.Join(dir, name)
	switch kind % kinds {
	case 0:
		return os.WriteFile(path, []byte("content"), 0o644)
	case 1:
		return os.Mkdir(path, 0o755)
	case 2:
		return errors.Join(os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, name), nil, 0o644))
	case 3:
		return os.Symlink(name, path)
	case 4:
		return errors.Join(os.WriteFile(path, nil, 0o644), os.Link(path, filepath.Join(dir, "other")))
	}
	return unix.Mkfifo(path, 0o600)
}

// layerBetween is layerOf that returns errors.
func layerBetween(lower, upper string) ([]byte, error) {
	var out bytes.Buffer
	err := between(lower, upper, func(to *tree) changes { return newLayer(context.Background(), &out, to, nil) })
	return out.Bytes(), err
}

// between compares two directories.
func between(lower, upper string, begin func(to *tree) changes) error {
	c := comparison{ctx: context.Background(), hint: hintAll()}
	for dir, side := range map[string]**tree{lower: &c.lower, upper: &c.upper} {
		if dir == "" {
			continue
		}
		root, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer root.Close()
		*side = &tree{root: root, name: dir}
	}
	c.to = begin(c.upper)
	if err := c.run(); err != nil {
		return err
	}
	if l, ok := c.to.(*layer); ok {
		return l.close()
	}
	return nil
}

// requireReported asserts that a change is reported by its path, in one line of JSON.
func requireReported(t *testing.T, lower, upper, path string) {
	t.Helper()
	var reported []string
	require.NoError(t, between(lower, upper, func(*tree) changes {
		return changeFunc(func(c Change) error {
			reported = append(reported, c.Path)
			line, err := json.Marshal(c)
			require.NoError(t, err)
			require.NotContains(t, string(line), "\n")
			var again Change
			require.NoError(t, json.Unmarshal(line, &again))
			require.True(t, again == c || !utf8.ValidString(c.Path), "%s", line)
			return nil
		})
	}))
	require.Contains(t, reported, path)
}

// FuzzAttributes asserts that a layer holds an extended attribute with any name and
// value, or omits it if its name cannot be written.
func FuzzAttributes(f *testing.F) {
	for _, name := range []string{"a", "a=b", "=", "a\nb", "\xff", " ", "é", strings.Repeat("x", 200)} {
		f.Add(name, "value")
		f.Add(name, "")
		f.Add(name, "\x00\n=\xff")
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if name == "" || strings.Contains(name, "\x00") {
			t.Skip("not the name of an attribute")
		}
		dir := t.TempDir()
		full, again := filepath.Join(dir, "full"), filepath.Join(dir, "again")
		write(t, full, "file")
		require.NoError(t, os.Mkdir(again, 0o755))
		if err := unix.Lsetxattr(filepath.Join(full, "file"), "user."+name, []byte(value), 0); err != nil {
			t.Skip("an attribute that this file system refuses: " + err.Error())
		}
		layer, err := layerBetween("", full)
		require.NoError(t, err)
		apply(t, layer, again)
		if strings.Contains(name, "=") { // it ends the name in a tar record
			require.NoError(t, unix.Lremovexattr(filepath.Join(full, "file"), "user."+name))
		}
		require.Empty(t, randtree.Differences(read(t, full), read(t, again)))
	})
}

// FuzzDirents asserts that any bytes in place of the kernel's directory entries are
// read to their end or refused, and that entries are read as they were written.
func FuzzDirents(f *testing.F) {
	f.Add([]byte{})
	f.Add(dirent(nil, 7, unix.DT_REG, "file"))
	f.Add(dirent(dirent(dirent(nil, 1, unix.DT_DIR, "."), 2, unix.DT_DIR, ".."), 9, unix.DT_DIR, "dir"))
	f.Add(dirent(dirent(nil, firstControl, unix.DT_DIR, ".zfs"), 3, unix.DT_SOCK, "socket"))
	f.Add(dirent(dirent(nil, 3, unix.DT_UNKNOWN, "here"), 4, unix.DT_UNKNOWN, "nowhere"))
	f.Add(dirent(nil, 3, unix.DT_LNK, strings.Repeat("x", 255))[:100])
	dir := f.TempDir()
	require.NoError(f, os.WriteFile(filepath.Join(dir, "here"), nil, 0o644))
	root, err := os.Open(dir)
	require.NoError(f, err)
	defer root.Close()
	f.Fuzz(func(t *testing.T, b []byte) {
		tree := &tree{root: root, name: dir}
		given := bytes.Clone(b)
		list, err := tree.entries(nil, ".", b)
		require.Equal(t, given, b)
		if err != nil {
			require.Nil(t, list)
			return
		}
		require.LessOrEqual(t, len(list), len(b)/19)
		var written []byte
		for _, e := range list {
			require.NotContains(t, e.name, "\x00")
			require.NotContains(t, []string{".", ".."}, e.name)
			require.Less(t, e.object, uint64(firstControl))
			kind := byte(unix.DT_REG)
			if e.dir {
				kind = unix.DT_DIR
			}
			if len(e.name) < 60<<10 {
				written = dirent(written, e.object, kind, e.name)
			}
		}
		again, err := tree.entries(nil, ".", written)
		require.NoError(t, err)
		if len(again) == len(list) {
			require.Equal(t, list, again)
		}
	})
}

// dirent appends a directory entry in the kernel's format.
func dirent(b []byte, object uint64, kind byte, name string) []byte {
	length := (19 + len(name) + 1 + 7) &^ 7
	b = binary.NativeEndian.AppendUint64(b, object)
	b = binary.NativeEndian.AppendUint64(b, 0)
	b = binary.NativeEndian.AppendUint16(b, uint16(length))
	b = append(append(b, kind), name...)
	return append(b, make([]byte, length-19-len(name))...)
}
