package diff

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// tree reads a directory tree that does not change meanwhile, such as a snapshot's.
// Paths are relative to its root, which is ".". It never follows a symbolic link and
// never leaves the file system: the caller passes only paths whose parents it has read
// as directories.
type tree struct {
	root *os.File
	name string // for errors
}

// namesLimit is Linux's limit of the names of a file's extended attributes, in bytes.
const namesLimit = 64 << 10

func (t *tree) fail(what, rel string, err error) error {
	switch {
	case errors.Is(err, syscall.ENAMETOOLONG):
		err = fmt.Errorf("%w: a layer cannot hold a path of more than %d bytes: %w", err, pathLimit, errdefs.ErrFailedPrecondition)
	case errors.Is(err, syscall.E2BIG):
		err = fmt.Errorf("%w: Linux cannot list attributes whose names have more than %d bytes in total; remove some: %w", err, namesLimit, errdefs.ErrFailedPrecondition)
	}
	return fmt.Errorf("%s %q in %s: %w", what, rel, t.name, err)
}

func (t *tree) fd() int { return int(t.root.Fd()) }

// open opens a file or directory for reading.
func (t *tree) open(rel string) (*os.File, error) {
	fd, err := unix.Openat(t.fd(), rel, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, t.fail("open", rel, err)
	}
	return os.NewFile(uintptr(fd), rel), nil
}

// nextData returns the offset of the first data of a file from an offset on. It
// returns size if there is no data, and from if the offset is unknown.
func nextData(file *os.File, from, size int64) int64 {
	at, err := unix.Seek(int(file.Fd()), from, unix.SEEK_DATA)
	switch {
	case errors.Is(err, syscall.ENXIO):
		if end, err := unix.Seek(int(file.Fd()), 0, io.SeekEnd); err != nil || end < size {
			return from // reading there fails
		}
		return size
	case err != nil || at < from:
		return from
	}
	return min(at, size)
}

// stat returns the metadata of a path.
func (t *tree) stat(rel string) (node, error) {
	var st unix.Statx_t
	const want = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	err := unix.Statx(t.fd(), rel, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, want, &st)
	if err != nil {
		return node{}, t.fail("stat", rel, err)
	}
	return node{
		object: st.Ino, born: stamp(st.Btime), mode: uint32(st.Mode), uid: st.Uid, gid: st.Gid, links: st.Nlink,
		major: st.Rdev_major, minor: st.Rdev_minor, size: int64(st.Size),
		mtime: stamp(st.Mtime), ctime: stamp(st.Ctime),
	}, nil
}

func stamp(t unix.StatxTimestamp) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// firstControl is the first inode number of ZFS's control directories, such as .zfs.
// No object has one.
const firstControl = 1 << 47

// readDir returns the entries of a directory, sorted by name. It omits sockets, which
// a layer cannot hold.
func (t *tree) readDir(ctx context.Context, rel string) ([]direntry, error) {
	dir, err := t.open(rel)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	buf := direntBuffers.Get().(*[]byte)
	defer direntBuffers.Put(buf)
	var list []direntry
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		n, err := unix.Getdents(int(dir.Fd()), *buf)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return nil, t.fail("read directory", rel, err)
		}
		if n == 0 {
			break
		}
		if list, err = t.entries(list, rel, (*buf)[:n]); err != nil {
			return nil, err
		}
	}
	return list, sortNames(ctx, list)
}

// sortNames sorts entries by name. It checks the context, because sorting millions of
// names takes seconds.
func sortNames(ctx context.Context, list []direntry) error {
	const interval = 1 << 16
	left, ended := interval, false
	slices.SortFunc(list, func(a, b direntry) int {
		if left--; left == 0 {
			left, ended = interval, ended || ctx.Err() != nil
		}
		if ended {
			return 0 // ends the sorting soon
		}
		return cmp.Compare(a.name, b.name)
	})
	if ended {
		return context.Cause(ctx)
	}
	return nil
}

// entries appends the entries that the kernel wrote.
func (t *tree) entries(list []direntry, rel string, b []byte) ([]direntry, error) {
	const lengthAt, typeAt, nameAt = 16, 18, 19 // of struct linux_dirent64
	for len(b) > 0 {
		if len(b) < nameAt {
			return nil, t.fail("read directory", rel, syscall.EIO)
		}
		length := int(binary.NativeEndian.Uint16(b[lengthAt:]))
		if length < nameAt || length > len(b) {
			return nil, t.fail("read directory", rel, syscall.EIO)
		}
		name, _, _ := bytes.Cut(b[nameAt:length], []byte{0})
		e := direntry{name: string(name), object: binary.NativeEndian.Uint64(b)}
		kind := b[typeAt]
		b = b[length:]
		if e.name == "." || e.name == ".." || e.object >= firstControl {
			continue
		}
		if kind == unix.DT_UNKNOWN {
			n, err := t.stat(path.Join(rel, e.name))
			if err != nil {
				return nil, err
			}
			kind = uint8(n.mode & typeMask >> 12)
		}
		if e.dir = kind == unix.DT_DIR; kind != unix.DT_SOCK {
			list = append(list, e)
		}
	}
	return list, nil
}

// readLink returns the target of a symbolic link.
func (t *tree) readLink(rel string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(t.fd(), rel, buf)
	if err != nil {
		return "", t.fail("read link", rel, err)
	}
	return string(buf[:n]), nil
}

// attributeNames returns the names of the extended attributes of a path that a layer
// holds, sorted.
func (t *tree) attributeNames(rel string) ([]string, error) {
	all, err := t.named(rel, unix.Llistxattr)
	if errors.Is(err, syscall.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, t.fail("list the attributes of", rel, err)
	}
	var names []string
	for name := range bytes.SplitSeq(all, []byte{0}) {
		if isLayerAttribute(string(name)) {
			names = append(names, string(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// attribute returns the value of an extended attribute.
func (t *tree) attribute(rel, name string) (string, error) {
	value, err := t.named(rel, func(full string, buf []byte) (int, error) { return unix.Lgetxattr(full, name, buf) })
	if err != nil {
		return "", t.fail(fmt.Sprintf("read attribute %s of", name), rel, err)
	}
	return string(value), nil
}

// named makes a system call that takes an absolute path only. If that path would be
// too long for the kernel, it begins at the parent directory.
func (t *tree) named(rel string, call func(full string, buf []byte) (int, error)) ([]byte, error) {
	const longestPrefix = len("/proc/self/fd/2147483647/")
	in := t.fd()
	if len(rel)+longestPrefix >= unix.PathMax {
		dir, err := unix.Openat(in, path.Dir(rel), unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(dir)
		in, rel = dir, path.Base(rel)
	}
	full := "/proc/self/fd/" + strconv.Itoa(in) + "/" + rel
	return grow(func(buf []byte) (int, error) { return call(full, buf) })
}

// grow calls f with a buffer, and with a larger one as long as it is too small.
func grow(f func([]byte) (int, error)) ([]byte, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := f(buf)
		if errors.Is(err, syscall.ERANGE) && size < 1<<20 {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

// objects returns the approximate number of files, directories and other objects.
func (t *tree) objects() (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(t.fd(), &st); err != nil {
		return 0, t.fail("statfs", ".", err)
	}
	return st.Files - min(st.Files, st.Ffree), nil
}
