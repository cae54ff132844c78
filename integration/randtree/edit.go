//go:build linux

package randtree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// edit is something that programs do to a tree. It returns what it did it to,
// or "" where there was nothing of that kind.
type edit struct {
	name string
	root bool // only root may
	do   func(t *Tree) (string, error)
}

// creating is how many of the edits, the first, make something new.
const creating = 10

var edits = []edit{
	{"make file", false, (*Tree).makeFile},
	{"make file", false, (*Tree).makeFile},
	{"make file", false, (*Tree).makeFile},
	{"make directory", false, (*Tree).makeDir},
	{"make directory", false, (*Tree).makeDir},
	{"make symbolic link", false, (*Tree).makeSymlink},
	{"make hard link", false, (*Tree).makeLink},
	{"make fifo", false, (*Tree).makeFifo},
	{"make device", true, (*Tree).makeDevice},
	{"make sparse file", false, (*Tree).makeSparse},

	{"overwrite", false, (*Tree).overwrite},
	{"overwrite", false, (*Tree).overwrite},
	{"overwrite and set the time back", false, (*Tree).overwriteInSecret},
	{"append to", false, (*Tree).extend},
	{"truncate", false, (*Tree).truncate},
	{"touch", false, (*Tree).touch},
	{"rewrite with the same", false, (*Tree).rewrite},
	{"chmod", false, (*Tree).chmod},
	{"chmod and back", false, (*Tree).chmodAndBack},
	{"chown", true, (*Tree).chown},
	{"set attribute", false, (*Tree).setAttribute},
	{"remove attributes", false, (*Tree).removeAttributes},
	{"set capability", true, (*Tree).setCapability},
	{"set access list", false, (*Tree).setACL},
	{"delete", false, (*Tree).remove},
	{"delete", false, (*Tree).remove},
	{"delete tree", false, (*Tree).removeTree},
	{"empty directory", false, (*Tree).empty},
	{"delete while open", false, (*Tree).removeOpen},
	{"rename", false, (*Tree).rename},
	{"rename over another", false, (*Tree).renameOver},
	{"rename directory", false, (*Tree).renameDir},
	{"swap", false, (*Tree).swap},
	{"replace by the other type", false, (*Tree).replaceType},
	{"replace directory", false, (*Tree).replaceDir},
	{"copy over itself", false, (*Tree).copyOver},
	{"make socket", false, (*Tree).makeSocket},
}

func (t *Tree) overwrite() (string, error) {
	path, err := t.file()
	if err != nil || path == "" {
		return path, err
	}
	return path, t.writeInto(path)
}

// writeInto changes some bytes of a file, and its size where it is smaller.
func (t *Tree) writeInto(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(t.bytes(200), int64(t.r.IntN(5000)))
	return errors.Join(err, f.Close())
}

func (t *Tree) overwriteInSecret() (string, error) {
	path, err := t.file()
	if err != nil || path == "" {
		return path, err
	}
	was, err := timeOf(path)
	if err != nil {
		return path, err
	}
	content, err := os.ReadFile(path)
	if err != nil || len(content) == 0 {
		return "", err
	}
	content[t.r.IntN(len(content))]++
	return path, errors.Join(writeOver(path, content), setTime(path, was))
}

func writeOver(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

func (t *Tree) rewrite() (string, error) {
	path, err := t.file()
	if err != nil || path == "" {
		return path, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return path, err
	}
	return path, writeOver(path, content)
}

func (t *Tree) extend() (string, error) {
	path, err := t.file()
	if err != nil || path == "" {
		return path, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return path, err
	}
	_, err = f.Write(t.bytes(3000))
	return path, errors.Join(err, f.Close())
}

func (t *Tree) truncate() (string, error) {
	path, err := t.file()
	if err != nil || path == "" {
		return path, err
	}
	return path, os.Truncate(path, int64(t.r.IntN(4000)))
}

func (t *Tree) touch() (string, error) {
	path, err := t.any()
	if err != nil || path == "" {
		return path, err
	}
	return path, setTime(path, t.time())
}

func (t *Tree) chmod() (string, error) {
	path, err := t.pick(false, notLink)
	if err != nil || path == "" {
		return path, err
	}
	return path, unix.Chmod(path, uint32(t.r.IntN(0o10000))|0o700)
}

func (t *Tree) chmodAndBack() (string, error) {
	path, err := t.pick(false, notLink)
	if err != nil || path == "" {
		return path, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return path, err
	}
	return path, errors.Join(unix.Chmod(path, st.Mode&0o7777^0o007), unix.Chmod(path, st.Mode&0o7777))
}

func (t *Tree) chown() (string, error) {
	path, err := t.any()
	if err != nil || path == "" {
		return path, err
	}
	return path, os.Lchown(path, t.r.IntN(100_000), t.r.IntN(100_000))
}

func notLink(m fs.FileMode) bool { return m.IsRegular() || m.IsDir() }

// setAttribute sets one that is small or, one time in eight, one that no inode
// has room for.
func (t *Tree) setAttribute() (string, error) {
	path, err := t.pick(false, notLink)
	if err != nil || path == "" {
		return path, err
	}
	size := 60
	if t.r.IntN(8) == 0 {
		size = 3000
	}
	return path, supported(unix.Lsetxattr(path, fmt.Sprintf("user.a%d", t.r.IntN(4)), t.bytes(size), 0))
}

// supported takes it that a file system has no attributes, or no room for more.
func supported(err error) error {
	for _, no := range []error{syscall.ENOTSUP, syscall.ENOSPC, syscall.E2BIG, syscall.EPERM} {
		if errors.Is(err, no) {
			return nil
		}
	}
	return err
}

func (t *Tree) removeAttributes() (string, error) {
	path, err := t.pick(false, notLink)
	if err != nil || path == "" {
		return path, err
	}
	for i := range 4 {
		err := unix.Lremovexattr(path, fmt.Sprintf("user.a%d", i))
		if err := supported(err); err != nil && !errors.Is(err, syscall.ENODATA) {
			return path, err
		}
	}
	return path, nil
}

func (t *Tree) setCapability() (string, error) {
	path, err := t.file()
	if err != nil || path == "" {
		return path, err
	}
	// Revision 2, effective: five numbers of 32 bits.
	value := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	for _, n := range []uint32{1 << t.r.UintN(30), 0, 0, 0} {
		value = binary.LittleEndian.AppendUint32(value, n)
	}
	return path, supported(unix.Lsetxattr(path, "security.capability", value, 0))
}

func (t *Tree) setACL() (string, error) {
	path, err := t.pick(false, notLink)
	if err != nil || path == "" {
		return path, err
	}
	const none = 0xffffffff
	value := binary.LittleEndian.AppendUint32(nil, 2) // the format's version
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 7, none}, {0x02, uint16(t.r.IntN(8)), t.r.Uint32N(1000)}, {0x04, 5, none}, {0x10, 7, none}, {0x20, 5, none}} {
		value = binary.LittleEndian.AppendUint16(value, e.tag)
		value = binary.LittleEndian.AppendUint16(value, e.perm)
		value = binary.LittleEndian.AppendUint32(value, e.id)
	}
	name := "system.posix_acl_access"
	if i, err := os.Lstat(path); err == nil && i.IsDir() && t.r.IntN(2) == 0 {
		name = "system.posix_acl_default"
	}
	return path, supported(unix.Lsetxattr(path, name, value, 0))
}

func (t *Tree) remove() (string, error) {
	path, err := t.pick(false, func(m fs.FileMode) bool { return !m.IsDir() })
	if err != nil || path == "" {
		return path, err
	}
	t.again(path)
	return path, os.Remove(path)
}

// again notes that a name can be used again.
func (t *Tree) again(path string) {
	var n int
	if _, err := fmt.Sscanf(filepath.Base(path), "f%d", &n); err == nil {
		t.free = append(t.free, n)
	}
}

func (t *Tree) removeTree() (string, error) {
	path, err := t.dir()
	if err != nil || path == "" {
		return path, err
	}
	t.again(path)
	return path, os.RemoveAll(path)
}

func (t *Tree) empty() (string, error) {
	path, err := t.dir()
	if err != nil || path == "" {
		return path, err
	}
	list, err := os.ReadDir(path)
	if err != nil {
		return path, err
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(path, e.Name())); err != nil {
			return path, err
		}
	}
	return path, nil
}

func (t *Tree) removeOpen() (string, error) {
	path, err := t.file()
	if err != nil || path == "" {
		return path, err
	}
	f, err := os.Open(path)
	if err != nil {
		return path, err
	}
	t.Held = append(t.Held, f)
	return path, os.Remove(path)
}

func (t *Tree) rename() (string, error) {
	from, err := t.pick(false, func(m fs.FileMode) bool { return !m.IsDir() })
	if err != nil || from == "" {
		return from, err
	}
	to, err := t.fresh()
	if err != nil {
		return to, err
	}
	t.again(from)
	return from, os.Rename(from, to)
}

func (t *Tree) renameOver() (string, error) {
	from, err := t.file()
	if err != nil || from == "" {
		return from, err
	}
	to, err := t.file()
	if err != nil {
		return to, err
	}
	return from, os.Rename(from, to)
}

func (t *Tree) renameDir() (string, error) {
	from, err := t.dir()
	if err != nil || from == "" {
		return from, err
	}
	to, err := t.fresh()
	if err != nil || to == from || strings.HasPrefix(to, from+"/") {
		return "", err
	}
	t.again(from)
	return from, os.Rename(from, to)
}

// swap has two paths stand for each other's objects.
func (t *Tree) swap() (string, error) {
	a, err := t.any()
	if err != nil || a == "" {
		return a, err
	}
	b, err := t.any()
	if err != nil || a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") {
		return "", err
	}
	return a, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

func (t *Tree) replaceType() (string, error) {
	path, err := t.any()
	if err != nil || path == "" {
		return path, err
	}
	i, err := os.Lstat(path)
	if err != nil {
		return path, err
	}
	if err := os.RemoveAll(path); err != nil {
		return path, err
	}
	if i.IsDir() {
		return path, os.WriteFile(path, t.bytes(100), 0o644)
	}
	return path, errors.Join(os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, "in"), t.bytes(100), 0o644))
}

// replaceDir replaces a directory by another one that has some of its names.
func (t *Tree) replaceDir() (string, error) {
	path, err := t.dir()
	if err != nil || path == "" {
		return path, err
	}
	list, err := os.ReadDir(path)
	if err != nil {
		return path, err
	}
	if err := os.RemoveAll(path); err != nil {
		return path, err
	}
	if err := os.Mkdir(path, 0o750); err != nil {
		return path, err
	}
	for _, e := range list {
		if t.r.IntN(2) == 0 {
			if err := os.WriteFile(filepath.Join(path, e.Name()), t.bytes(100), 0o644); err != nil {
				return path, err
			}
		}
	}
	return path, nil
}

// copyOver replaces a file by a copy of it, as editors and package managers do:
// a new object in which everything is the same.
func (t *Tree) copyOver() (string, error) {
	path, err := t.file()
	if err != nil || path == "" {
		return path, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return path, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return path, err
	}
	next := filepath.Join(filepath.Dir(path), "next")
	return path, errors.Join(
		os.WriteFile(next, content, 0o600), os.Lchown(next, int(st.Uid), int(st.Gid)),
		unix.Chmod(next, st.Mode&0o7777), setTime(next, st.Mtim), os.Rename(next, path))
}
