package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// openRoot opens the root directory of a base that is mounted at path. It returns an
// error if another mount covers it or a directory above it. No later mount covers the
// result, through which the files in the base are opened.
func openRoot(base layout.Base, path string) (*os.Root, error) {
	root, err := openNearest(path)
	if err != nil {
		return nil, fmt.Errorf("root of %s: %w", base, err)
	}
	m, err := mountOf(root)
	if err == nil {
		err = checkMount(base, path, m)
	}
	if err == nil && filepath.Clean(root.Name()) != filepath.Clean(path) {
		err = fmt.Errorf("root of %s: %s: %w", base, path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// openNearest opens a directory or, if that does not exist, the nearest existing one
// above it. A mount that covers that one covers the directory.
func openNearest(path string) (*os.Root, error) {
	for {
		root, err := os.OpenRoot(path)
		if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return root, err
		}
		path = filepath.Dir(path)
	}
}

// checkMount returns an error for a mount that is not one of the base's whole file
// system.
func checkMount(base layout.Base, path string, m *mountinfo.Info) error {
	if m == nil || m.FSType == "zfs" && m.Source == base.String() && m.Root == "/" {
		return nil
	}
	return fmt.Errorf("dataset %s is mounted at %s, but another mount covers it: %s (%s) at %s: unmount that, or mount the base after it",
		base, path, m.Source, m.FSType, m.Mountpoint)
}

// mountpoint returns the value of the property mountpoint for a file system that is to
// be mounted at root. In a pool with an altroot ZFS puts the altroot before the
// mountpoint, so mountpoint removes it from a root that begins with it.
func mountpoint(altroot, root string) string {
	if below, ok := strings.CutPrefix(filepath.Clean(root)+"/", filepath.Clean(altroot)+"/"); ok {
		root = "/" + below
	}
	return filepath.Clean(root)
}

// placeOf returns where ZFS mounts a file system whose mountpoint is mountpoint(altroot,
// root): below the altroot, whether root begins with it or not.
func placeOf(altroot, root string) string {
	return filepath.Join("/", altroot, mountpoint(altroot, root))
}

// checkPlace returns an error if root is not the place where the base is mounted. It
// reads the altroot of the pool only if the two differ.
func checkPlace(ctx context.Context, pool *zfs.Client, base layout.Base, place, root string) error {
	if filepath.Clean(root) == filepath.Clean(place) {
		return nil
	}
	altroot, err := pool.Altroot(ctx)
	if err != nil || placeOf(altroot, root) == filepath.Clean(place) {
		return err
	}
	return fmt.Errorf("root is %s, but dataset %s has mountpoint=%s: change the setting root, or move the base with 'zfs set mountpoint=%s %s'",
		root, base, place, mountpoint(altroot, root), base)
}
