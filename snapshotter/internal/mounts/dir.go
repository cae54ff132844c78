package mounts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// ErrForeign means that the path of a held mount has another mount, or is not a
// directory. The package never changes that.
var ErrForeign = errors.New("the place of a held mount is taken")

// Mounter mounts file systems. *zfs.Client implements it.
type Mounter interface {
	// MountAt mounts a file system, writable, on a directory.
	MountAt(ctx context.Context, filesystem, dir string) error
}

// Dir is a directory of held mounts. Its methods are safe for concurrent use, except
// that one file system must be used by one goroutine at a time.
type Dir struct {
	path    string
	mounter Mounter
	held    sync.Map // by file system, each a held
}

// held is a mount that this package created or found.
type held struct {
	path string
	identity
}

// identity identifies a mount: no two mounts that exist at the same time have the same
// mount ID, and no two file systems the same fsid.
type identity struct {
	mount int
	fsid  [2]int32
}

// table is the mounts directly below a directory.
type table struct {
	top map[string]entry // the topmost mount, by path
	all map[int]bool     // every mount, by mount ID
}

// entry is a mount of a table.
type entry struct {
	mount  int
	source string // "" if it is not of type zfs
	whole  bool   // the root of the file system is mounted, writable
}

// Open creates the directory if it is missing and finds the mounts that an earlier
// process created there: mounts of file systems that id accepts, at the path of that
// id. It fails if users other than root can enter the directory, or if it is on ZFS.
func Open(path string, mounter Mounter, id func(filesystem string) (string, bool)) (*Dir, error) {
	if err := makeDir(path); err != nil {
		return nil, err
	}
	path, err := filepath.EvalSymlinks(path) // the mount table has resolved paths
	if err != nil {
		return nil, fmt.Errorf("directory of held mounts: %w", err)
	}
	d := &Dir{path: path, mounter: mounter}
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

// find takes over the mounts of an earlier process. It removes empty directories
// without a mount.
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
		now, _, err := identify(place)
		if err != nil || now.mount != m.mount {
			continue // another mount covers it
		}
		if err := isolate(place); err != nil {
			return fmt.Errorf("held mount of %s: %w", m.source, err)
		}
		d.held.Store(m.source, held{place, now})
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("directory of held mounts: %w", err)
	}
	for _, e := range entries {
		place := d.place(e.Name())
		if _, mounted := mounts.top[place]; !mounted && e.IsDir() {
			_ = os.Remove(place) // an error is harmless
		}
	}
	return nil
}

func (d *Dir) place(id string) string { return filepath.Join(d.path, id) }

// Path returns the directory of the mounts. Each is named by its ID.
func (d *Dir) Path() string { return d.path }

// Held returns the file systems that are mounted here, sorted.
func (d *Dir) Held() []string {
	var filesystems []string
	for filesystem := range d.held.Range {
		filesystems = append(filesystems, filesystem.(string))
	}
	slices.Sort(filesystems)
	return filesystems
}

// Hold returns the path at which a file system is mounted, and mounts it there if
// necessary. It fails with ErrForeign if the path is taken, and with the errors of the
// mounter. The returned path has a mount of this file system at the time of the call
// and is never an empty directory.
func (d *Dir) Hold(ctx context.Context, filesystem, id string) (string, error) {
	if known, ok := d.held.Load(filesystem); ok {
		h := known.(held)
		there, err := h.isThere(d.path)
		if err != nil {
			return "", fmt.Errorf("held mount of %s: %w", filesystem, err)
		}
		if there {
			return h.path, nil
		}
		d.held.Delete(filesystem)
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
	now, _, err := identify(place)
	if err != nil {
		return "", fmt.Errorf("held mount of %s: %w", filesystem, err)
	}
	d.held.Store(filesystem, held{place, now})
	return place, nil
}

// Visible reports whether a path that Hold returned leads to the same directory from the
// root directory of another process. If the mount does not propagate to the mount namespace
// of that process, an empty directory or nothing is at the path there.
func (d *Dir) Visible(root, path string) (bool, error) { return sameDirectory(root, path) }

// Objects returns how many objects a file system has that is mounted here. ok is false if it is
// not.
func (d *Dir) Objects(filesystem string) (n uint64, ok bool) {
	known, ok := d.held.Load(filesystem)
	if !ok {
		return 0, false
	}
	h := known.(held)
	now, n, err := identify(h.path)
	return n, err == nil && now == h.identity
}

// clear makes place a directory without a mount.
func (d *Dir) clear(place string) error {
	err := os.Mkdir(place, 0o700)
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("held mount: %w", err)
	}
	above, _, err := identify(d.path)
	if err != nil {
		return err
	}
	now, _, err := identify(place)
	if err != nil {
		return fmt.Errorf("%w: %s is not a directory: remove it", ErrForeign, place)
	}
	if now.mount != above.mount {
		return coveredError(place)
	}
	return nil
}

// Release unmounts a file system and removes its directory. It detaches a mount that
// is in use, which the kernel ends with its last user. Releasing a file system that is
// not mounted here succeeds. Release fails with ErrForeign if another mount covers the
// one to unmount.
func (d *Dir) Release(filesystem string) error {
	known, ok := d.held.Load(filesystem)
	if !ok {
		return nil
	}
	h := known.(held)
	there, err := h.isThere(d.path)
	if err == nil && there {
		err = detach(h.path)
	}
	if err != nil {
		return fmt.Errorf("held mount of %s: %w", filesystem, err)
	}
	d.held.Delete(filesystem)
	return removeEmpty(h.path)
}

// isThere reports whether a mount is still the topmost one at its path. It fails with
// ErrForeign if another mount covers it. A mount that was unmounted by hand is not
// there.
func (h held) isThere(dir string) (bool, error) {
	now, _, err := identify(h.path)
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

// removeEmpty removes a directory. A directory that does not exist counts as removed,
// and one that is not empty stays.
func removeEmpty(path string) error {
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) || isBusyOrNotEmpty(err) {
		return nil
	}
	return err
}
