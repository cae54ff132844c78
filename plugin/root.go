package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
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
