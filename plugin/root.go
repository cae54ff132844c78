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

// openRoot opens the root directory of a base that is mounted at path, and makes sure that
// it is the base's: another mount may cover it, or a directory above it. The files in the
// base are used by way of what it returns, which no later mount covers.
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

// openNearest opens a directory or, where that does not exist, the nearest one above it:
// what covers that covers the directory.
func openNearest(path string) (*os.Root, error) {
	for {
		root, err := os.OpenRoot(path)
		if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			return root, err
		}
		path = filepath.Dir(path)
	}
}

// checkMount refuses a mount that is not one of the base's whole file system.
func checkMount(base layout.Base, path string, m *mountinfo.Info) error {
	if m == nil || m.FSType == "zfs" && m.Source == base.String() && m.Root == "/" {
		return nil
	}
	return fmt.Errorf("dataset %s is mounted at %s, where another mount covers it: %s (%s) at %s: unmount that, or mount the base after it",
		base, path, m.Source, m.FSType, m.Mountpoint)
}
