//go:build linux

package randtree

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Read says all of a tree that a layer can hold: for every path its type, mode,
// owner, time, size, target, device, attributes and content, and which other
// paths are names of the same object. Of the root itself it says nothing.
func Read(root string) (map[string]string, error) {
	found, names := make(map[string]string), make(map[uint64][]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, root)
		if rel == "" || d.Type()&fs.ModeSocket != 0 {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		found[rel], err = describe(path, &st)
		if !d.IsDir() && st.Nlink > 1 {
			names[st.Ino] = append(names[st.Ino], rel)
		}
		return err
	})
	for _, of := range names {
		slices.Sort(of)
		for _, name := range of {
			found[name] += fmt.Sprintf(" names %q", of)
		}
	}
	return found, err
}

func describe(path string, st *unix.Stat_t) (string, error) {
	s := fmt.Sprintf("mode %o owner %d:%d time %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		s += fmt.Sprintf(" size %d content %.8x", len(content), sha256.Sum256(content))
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		s += fmt.Sprintf(" target %q", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		s += fmt.Sprintf(" device %x", st.Rdev)
	}
	attributes, err := attributesOf(path)
	return s + attributes, err
}

func attributesOf(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil || n == 0 {
		return "", supported(err)
	}
	list := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(list)
	s := ""
	for _, name := range list {
		if name == "security.selinux" || strings.HasPrefix(name, "trusted.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		s += fmt.Sprintf(" %s=%.8x", name, sha256.Sum256(value[:n]))
	}
	return s, nil
}

// Differences says where two trees differ, a line each.
func Differences(was, is map[string]string) (lines []string) {
	for path, s := range was {
		if other, ok := is[path]; !ok {
			lines = append(lines, fmt.Sprintf("%q is missing: %s", path, s))
		} else if other != s {
			lines = append(lines, fmt.Sprintf("%q: %s\n\tis %s", path, s, other))
		}
	}
	for path, s := range is {
		if _, ok := was[path]; !ok {
			lines = append(lines, fmt.Sprintf("%q is too much: %s", path, s))
		}
	}
	slices.Sort(lines)
	return lines
}
