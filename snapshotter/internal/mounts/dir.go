package mounts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// ErrForeign means that a path which a held mount needs has another mount, or
// something that is not a directory. Package mounts never touches that.
var ErrForeign = errors.New("the place of a held mount is taken")

// Mounter mounts file systems. *zfs.Client is one.
type Mounter interface {
	// MountAt mounts a file system, writable, on a directory.
	MountAt(ctx context.Context, filesystem, dir string) error
}

// Dir is a directory of held mounts. Its methods may be called by any number of
// goroutines, but for one file system by one at a time.
type Dir struct {
	path    string
	mounter Mounter

	mu   sync.Mutex
	held map[string]held // by file system
}

// held is a mount that this package made or found.
type held struct {
	path string
	identity
}

// identity is what the kernel says of a mount: no two mounts that exist at the
// same time have the same mount ID, and no two file systems the same fsid.
type identity struct {
	mount int
	fsid  [2]int32
}

// Open makes the directory where it is missing and finds the mounts that an
// earlier process made there: of a file system that id accepts, at the place of
// that id. It fails where users other than root can reach the directory, or
// where it lies on ZFS.
func Open(path string, mounter Mounter, id func(filesystem string) (string, bool)) (*Dir, error) {
	if err := makeDir(path); err != nil {
		return nil, err
	}
	path, err := filepath.EvalSymlinks(path) // as the mount table has it
	if err != nil {
		return nil, fmt.Errorf("directory of held mounts: %w", err)
	}
	d := &Dir{path: path, mounter: mounter, held: make(map[string]held)}
	return d, d.find(id)
}

func makeDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("directory of held mounts: %w", err)
	}
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return fmt.Errorf("directory of held mounts: %w", err)
	case !info.IsDir():
		return fmt.Errorf("%s, the directory of held mounts, is not a directory: remove it", path)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("directory %s of held mounts is open to others (mode %04o): 'chmod 0700 %s' closes it", path, info.Mode().Perm(), path)
	}
	onZFS, err := isZFS(path)
	if err == nil && onZFS {
		return fmt.Errorf("directory %s of held mounts lies on ZFS: choose an address for the socket on tmpfs, such as /run/zfstpl/zfstpl.sock", path)
	}
	return err
}

// find takes over what an earlier process mounted. It removes the directories
// that have no mount; of a directory that something is in nothing is removed.
func (d *Dir) find(id func(filesystem string) (string, bool)) error {
	mounts, err := readMounts(d.path)
	if err != nil {
		return err
	}
	for place, m := range mounts.top {
		name, ok := id(m.source)
		if !ok || place != d.place(name) || !m.whole {
			continue
		}
		now, err := identify(place)
		if err != nil || now.mount != m.mount {
			continue // another mount covers it
		}
		if err := isolate(place); err != nil {
			return fmt.Errorf("held mount of %s: %w", m.source, err)
		}
		d.held[m.source] = held{place, now}
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("directory of held mounts: %w", err)
	}
	for _, e := range entries {
		place := d.place(e.Name())
		if _, mounted := mounts.top[place]; !mounted && e.IsDir() {
			_ = os.Remove(place) // only tidies up
		}
	}
	return nil
}

func (d *Dir) place(id string) string { return filepath.Join(d.path, id) }

// Path returns the directory.
func (d *Dir) Path() string { return d.path }

// Held returns the file systems that are mounted here, sorted.
func (d *Dir) Held() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.held))
}

func (d *Dir) known(filesystem string) (held, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.held[filesystem]
	return h, ok
}

func (d *Dir) note(filesystem string, h held) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held[filesystem] = h
}

func (d *Dir) forget(filesystem string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.held, filesystem)
}

// Hold returns the path at which a file system is mounted, and mounts it there
// where it is not. It fails with ErrForeign where the path is taken, and with
// the mounter's errors. What it returns is a mount of this file system at the
// time of the call, never an empty directory.
func (d *Dir) Hold(ctx context.Context, filesystem, id string) (string, error) {
	if h, ok := d.known(filesystem); ok {
		there, err := h.isThere(d.path)
		if err != nil {
			return "", fmt.Errorf("held mount of %s: %w", filesystem, err)
		}
		if there {
			return h.path, nil
		}
		d.forget(filesystem)
	}
	place := d.place(id)
	if err := d.clear(place); err != nil {
		return "", err
	}
	if err := d.mounter.MountAt(ctx, filesystem, place); err != nil {
		return "", errors.Join(err, removeEmpty(place))
	}
	if err := isolate(place); err != nil {
		return "", fmt.Errorf("held mount of %s: %w", filesystem, errors.Join(err, detach(place)))
	}
	now, err := identify(place)
	if err != nil {
		return "", fmt.Errorf("held mount of %s: %w", filesystem, err)
	}
	d.note(filesystem, held{place, now})
	return place, nil
}

// clear makes place a directory on which nothing is mounted.
func (d *Dir) clear(place string) error {
	err := os.Mkdir(place, 0o700)
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("held mount: %w", err)
	}
	above, err := identify(d.path)
	if err != nil {
		return err
	}
	now, err := identify(place)
	if err != nil {
		return fmt.Errorf("%w: %s is not a directory: remove it", ErrForeign, place)
	}
	if now.mount != above.mount {
		return coveredError(place)
	}
	return nil
}

// Release unmounts a file system here and removes its directory. It detaches a
// mount that is in use: the kernel ends that with its last user. A file system
// that is not mounted here counts as released. It fails with ErrForeign where
// another mount covers the one that it is to unmount.
func (d *Dir) Release(filesystem string) error {
	h, ok := d.known(filesystem)
	if !ok {
		return nil
	}
	there, err := h.isThere(d.path)
	if err == nil && there {
		err = detach(h.path)
	}
	if err != nil {
		return fmt.Errorf("held mount of %s: %w", filesystem, err)
	}
	d.forget(filesystem)
	return removeEmpty(h.path)
}

// isThere reports whether a mount is still the topmost one at its place. It fails
// with ErrForeign where another one covers it. One that was unmounted by hand is
// not there.
func (h held) isThere(dir string) (bool, error) {
	now, err := identify(h.path)
	if err == nil && now == h.identity {
		return true, nil
	}
	mounts, tableErr := readMounts(dir)
	if tableErr != nil {
		return false, tableErr
	}
	if mounts.all[h.mount] {
		return false, coveredError(h.path)
	}
	return false, nil
}

func coveredError(place string) error {
	return fmt.Errorf("%w: another mount covers %s ('findmnt %s' shows it): 'umount %s' removes that", ErrForeign, place, place, place)
}

// removeEmpty removes a directory. One that is gone counts as removed, and one
// that has something in it stays.
func removeEmpty(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) || isBusyOrFull(err) {
		return nil
	}
	return err
}
