//go:build linux

package randtree

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func (t *Tree) makeFile() (string, error) {
	path, err := t.fresh()
	if err != nil {
		return path, err
	}
	return path, os.WriteFile(path, t.bytes(9000), fs.FileMode(t.r.IntN(0o1000))|0o400)
}

func (t *Tree) makeDir() (string, error) {
	path, err := t.fresh()
	if err != nil {
		return path, err
	}
	return path, os.Mkdir(path, 0o755)
}

func (t *Tree) makeSymlink() (string, error) {
	path, err := t.fresh()
	if err != nil {
		return path, err
	}
	return path, os.Symlink(strings.Repeat("../", t.r.IntN(4))+t.name(), path)
}

func (t *Tree) makeLink() (string, error) {
	from, err := t.file()
	if err != nil || from == "" {
		return from, err
	}
	to, err := t.fresh()
	if err != nil {
		return to, err
	}
	return from, os.Link(from, to)
}

func (t *Tree) makeFifo() (string, error) {
	path, err := t.fresh()
	if err != nil {
		return path, err
	}
	return path, unix.Mkfifo(path, 0o600)
}

func (t *Tree) makeDevice() (string, error) {
	path, err := t.fresh()
	if err != nil {
		return path, err
	}
	mode := []uint32{unix.S_IFCHR, unix.S_IFBLK}[t.r.IntN(2)]
	return path, unix.Mknod(path, mode|0o640, int(unix.Mkdev(t.r.Uint32N(300), t.r.Uint32N(300))))
}

func (t *Tree) makeSparse() (string, error) {
	path, err := t.fresh()
	if err != nil {
		return path, err
	}
	f, err := os.Create(path)
	if err != nil {
		return path, err
	}
	_, err = f.WriteAt(t.bytes(100), int64(t.r.IntN(1<<20)))
	return path, errors.Join(err, f.Truncate(int64(1<<20+t.r.IntN(1<<20))), f.Close())
}

// makeSocket makes what no layer holds.
func (t *Tree) makeSocket() (string, error) {
	path, err := t.fresh()
	if err != nil || len(path) > 100 {
		return "", err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return path, err
	}
	l.SetUnlinkOnClose(false)
	return path, l.Close()
}
