//go:build linux

package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Walk describes everything below root, root included, in lexical order. It
// follows no symbolic link.
func Walk(root string) ([]Entry, error) {
	w := walker{root: root, seen: map[inode]int{}}
	if err := filepath.WalkDir(root, w.visit); err != nil {
		return nil, err
	}
	return w.entries, nil
}

// inode identifies a file across the file systems a tree may span.
type inode struct{ device, number uint64 }

type walker struct {
	root    string
	entries []Entry
	// seen holds the index of the first entry of every inode with several links.
	seen map[inode]int
}

func (w *walker) visit(path string, d fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	name, err := filepath.Rel(w.root, path)
	if err != nil {
		return err
	}
	if !utf8.ValidString(name) {
		// JSON would replace the bytes and two names could become one.
		return fmt.Errorf("%q is no UTF-8 and cannot be written down", name)
	}
	info, err := d.Info()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("no stat of %q", name)
	}
	e := Entry{Path: name, Type: typeOf(st.Mode), Mode: fmt.Sprintf("%04o", st.Mode&0o7777), UID: st.Uid, GID: st.Gid}
	if first, ok := w.sibling(st); ok {
		// The content was read with the first name.
		e = w.entries[first]
		e.Path = name
		w.entries = append(w.entries, e)
		return nil
	}
	if err := e.describe(path, st); err != nil {
		return err
	}
	w.entries = append(w.entries, e)
	return nil
}

// sibling finds the entry that already describes this inode and marks it as
// shared; otherwise it remembers the one about to be appended.
func (w *walker) sibling(st *syscall.Stat_t) (int, bool) {
	if st.Nlink < 2 || st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		return 0, false
	}
	key := inode{device: st.Dev, number: st.Ino}
	first, ok := w.seen[key]
	if !ok {
		w.seen[key] = len(w.entries)
		return 0, false
	}
	w.entries[first].Links = w.entries[first].Path
	return first, true
}

// describe adds what has to be read from the path itself.
func (e *Entry) describe(path string, st *syscall.Stat_t) error {
	var err error
	switch e.Type {
	case Symlink:
		e.Target, err = os.Readlink(path)
		return err
	case Char, Block:
		e.Device = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case File:
		e.Size = st.Size
		if e.SHA256, err = hash(path); err != nil {
			return err
		}
		e.Capability, err = capability(path)
	}
	return err
}

func typeOf(mode uint32) string {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return Directory
	case syscall.S_IFLNK:
		return Symlink
	case syscall.S_IFCHR:
		return Char
	case syscall.S_IFBLK:
		return Block
	case syscall.S_IFIFO:
		return Fifo
	case syscall.S_IFSOCK:
		return Socket
	default:
		return File
	}
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func capability(path string) (string, error) {
	// The attribute is at most 24 bytes in every version the kernel has.
	value := make([]byte, 64)
	n, err := unix.Lgetxattr(path, "security.capability", value)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("reading the capability of %s: %w", path, err)
	}
	return hex.EncodeToString(value[:n]), nil
}
