//go:build linux

package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFile bounds a file's size, which keeps a pool small that lives long.
const maxFile = 16 << 10

// Grow makes a layer in the tree at root: new files, and changes to those that
// layers below left. The same r on the same tree makes the same tree, save for
// times.
func Grow(root string, r *rand.Rand) error {
	g := grower{r: r, dir: filepath.Join(root, fmt.Sprintf("d%04x", r.Uint32()&0xffff))}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return err
	}
	for i := range 2 + r.IntN(4) {
		if err := g.file(filepath.Join(g.dir, fmt.Sprintf("f%d", i))); err != nil {
			return err
		}
	}
	if err := g.links(); err != nil {
		return err
	}
	if err := g.change(root); err != nil {
		return err
	}
	// Last, and without anything that would write it out: it is up to what
	// commits the tree that this is in it.
	return g.mapped(filepath.Join(root, "mapped"))
}

type grower struct {
	r   *rand.Rand
	dir string
}

func (g *grower) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.r.Uint32())
	}
	return b
}

func (g *grower) file(path string) error {
	modes := []fs.FileMode{0o600, 0o644, 0o755, 0o755 | fs.ModeSetuid}
	if err := os.WriteFile(path, g.bytes(g.r.IntN(maxFile)), 0o600); err != nil {
		return err
	}
	owner, mode := g.r.IntN(1000), modes[g.r.IntN(len(modes))]
	// Root gives it away; others, as in the unit tests, cannot.
	if os.Geteuid() == 0 {
		if err := os.Chown(path, owner, owner); err != nil {
			return err
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	if g.r.IntN(2) == 0 {
		return nil
	}
	err := unix.Lsetxattr(path, "user.powercut", g.bytes(1+g.r.IntN(100)), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return nil // not on ZFS, which has them
	}
	return err
}

func (g *grower) links() error {
	for _, name := range []string{"symlink", "hardlink"} {
		// A layer may be grown over one of the same name.
		if err := os.Remove(filepath.Join(g.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return errors.Join(
		os.Symlink(fmt.Sprintf("../%x", g.r.Uint64()), filepath.Join(g.dir, "symlink")),
		os.Link(filepath.Join(g.dir, "f0"), filepath.Join(g.dir, "hardlink")))
}

// change removes a file of the layers below, and overwrites a part of another.
func (g *grower) change(root string) error {
	files, err := filepath.Glob(filepath.Join(root, "d*", "f*")) // sorted
	if err != nil {
		return err
	}
	gone, changed := files[g.r.IntN(len(files))], files[g.r.IntN(len(files))]
	f, err := os.OpenFile(changed, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(g.bytes(100), int64(g.r.IntN(maxFile)))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Remove(gone)
}

// mapped writes a page through memory.
func (g *grower) mapped(path string) (err error) {
	const size = 4096
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	memory, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(memory, g.bytes(size))
	return syscall.Munmap(memory)
}
