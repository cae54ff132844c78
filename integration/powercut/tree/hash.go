//go:build linux

package tree

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/tools/image/manifest"
)

// Busy is the one file that does not count: a program may write to it while
// the tree is hashed.
const Busy = "busy"

// Hash is the digest of everything below root but Busy: paths, types, modes,
// owners, contents, links, targets and extended attributes. Times are not in
// it.
func Hash(root string) (string, error) {
	entries, err := manifest.Walk(root)
	if err != nil {
		return "", err
	}
	entries = slices.DeleteFunc(entries, func(e manifest.Entry) bool { return e.Path == Busy })
	digest := sha256.New()
	if err := manifest.Write(digest, entries); err != nil {
		return "", err
	}
	for _, e := range entries {
		attributes, err := attributes(filepath.Join(root, e.Path))
		if err != nil {
			return "", fmt.Errorf("attributes of %q: %w", e.Path, err)
		}
		for _, a := range attributes {
			fmt.Fprintf(digest, "%q %s\n", e.Path, a)
		}
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

// attributes are the extended attributes of a path, sorted.
func attributes(path string) ([]string, error) {
	names, err := read(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		if len(name) == 0 {
			continue
		}
		value, err := read(func(buf []byte) (int, error) { return unix.Lgetxattr(path, string(name), buf) })
		if err != nil {
			return nil, err
		}
		all = append(all, fmt.Sprintf("%q=%x", name, value))
	}
	slices.Sort(all)
	return all, nil
}

// read calls a system call that returns how much space it needs.
func read(call func([]byte) (int, error)) ([]byte, error) {
	size, err := call(nil)
	if err != nil || size == 0 {
		return nil, err
	}
	buf := make([]byte, size)
	n, err := call(buf)
	return buf[:max(n, 0)], err
}
