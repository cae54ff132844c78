package plugin

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Mountpoint returns the value of the property mountpoint for a file system that is to
// be mounted at root. In a pool with an altroot ZFS puts the altroot before the
// mountpoint, so Mountpoint removes it from a root that begins with it.
func Mountpoint(altroot, root string) string {
	if below, ok := belowAltroot(altroot, root); ok {
		return below
	}
	return filepath.Clean(root)
}

// Place returns where ZFS mounts a file system whose mountpoint is Mountpoint(altroot,
// root): below the altroot, whether root begins with it or not.
func Place(altroot, root string) string {
	return filepath.Join("/", altroot, Mountpoint(altroot, root))
}

func belowAltroot(altroot, root string) (string, bool) {
	altroot, root = filepath.Clean(altroot), filepath.Clean(root)
	if altroot == "." || altroot == "/" {
		return root, true
	}
	if root == altroot {
		return "/", true
	}
	below, ok := strings.CutPrefix(root, altroot+"/")
	return "/" + below, ok
}

// checkPlace returns an error if root is not the place where the base is mounted. It
// reads the altroot of the pool only if the two differ.
func checkPlace(ctx context.Context, pool *zfs.Client, base layout.Base, place, root string) error {
	if filepath.Clean(root) == filepath.Clean(place) {
		return nil
	}
	altroot, err := pool.Altroot(ctx)
	if err != nil || Place(altroot, root) == filepath.Clean(place) {
		return err
	}
	return fmt.Errorf("root is %s, but dataset %s has mountpoint=%s: change the setting root, or move the base with 'zfs set mountpoint=%s %s'",
		root, base, place, Mountpoint(altroot, root), base)
}
