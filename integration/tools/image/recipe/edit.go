//go:build linux

package recipe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// An edit is one change to a tree. Paths are relative to it.
type edit func(tree string) error

// apply makes edits in their order and stops at the first that fails.
func apply(tree string, edits ...edit) error {
	for _, e := range edits {
		if err := e(tree); err != nil {
			return err
		}
	}
	return nil
}

func directory(name string, perm uint32) edit {
	return func(tree string) error {
		path := filepath.Join(tree, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		return syscall.Chmod(path, perm)
	}
}

func file(name string, content []byte, perm uint32) edit {
	return func(tree string) error {
		path := filepath.Join(tree, name)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already", name)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
		return syscall.Chmod(path, perm)
	}
}

func appendTo(name, text string) edit {
	return func(tree string) (err error) {
		f, err := os.OpenFile(filepath.Join(tree, name), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		_, err = f.WriteString(text)
		return err
	}
}

// duplicate copies a file of the tree to another name: a new inode.
func duplicate(from, to string, perm uint32) edit {
	return func(tree string) error {
		return copyFile(filepath.Join(tree, from), filepath.Join(tree, to), perm)
	}
}

func mode(name string, perm uint32) edit {
	return func(tree string) error { return syscall.Chmod(filepath.Join(tree, name), perm) }
}

// owner changes the owner and puts back the setuid and setgid bits that doing
// so takes away.
func owner(name string, uid, gid int) edit {
	return func(tree string) error {
		path := filepath.Join(tree, name)
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return &fs.PathError{Op: "lstat", Path: path, Err: err}
		}
		if err := os.Lchown(path, uid, gid); err != nil {
			return err
		}
		return syscall.Chmod(path, st.Mode&0o7777)
	}
}

func link(old, name string) edit {
	return func(tree string) error { return os.Link(filepath.Join(tree, old), filepath.Join(tree, name)) }
}

func symlink(target, name string) edit {
	return func(tree string) error { return os.Symlink(target, filepath.Join(tree, name)) }
}

func fifo(name string, perm uint32) edit {
	return func(tree string) error { return unix.Mkfifo(filepath.Join(tree, name), perm) }
}

func rename(from, to string) edit {
	return func(tree string) error { return os.Rename(filepath.Join(tree, from), filepath.Join(tree, to)) }
}

func removeAll(name string) edit {
	return func(tree string) error { return os.RemoveAll(filepath.Join(tree, name)) }
}

func removeMatching(pattern string) edit {
	return func(tree string) error {
		paths, err := filepath.Glob(filepath.Join(tree, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		return nil
	}
}

// netRaw gives a file the capability CAP_NET_RAW, permitted and effective, as
// setcap(8) would, without asking for it to be installed.
func netRaw(name string) edit {
	return func(tree string) error {
		path := filepath.Join(tree, name)
		if err := unix.Lsetxattr(path, "security.capability", capabilityValue(unix.CAP_NET_RAW), 0); err != nil {
			return &fs.PathError{Op: "setxattr security.capability", Path: path, Err: err}
		}
		return nil
	}
}

// capabilityValue encodes one capability as struct vfs_cap_data of revision 2.
func capabilityValue(capability uint) []byte {
	const revision2, effective = 0x02000000, 1
	permitted := uint64(1) << capability
	var b bytes.Buffer
	for _, word := range []uint32{revision2 | effective, uint32(permitted), 0, uint32(permitted >> 32), 0} {
		b.Write(binary.LittleEndian.AppendUint32(nil, word))
	}
	return b.Bytes()
}
