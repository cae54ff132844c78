package plugin

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Mountpoint returns the mountpoint to give to a file system that is to be mounted at
// root. In a pool that is imported below an altroot ZFS puts that before the mountpoint;
// a root that begins with it loses it, and any other is taken as given.
func Mountpoint(altroot, root string) string {
	if below, ok := belowAltroot(altroot, root); ok {
		return below
	}
	return filepath.Clean(root)
}

// Place returns where a file system is mounted that is to be mounted at root: below the
// altroot, whether root says so or not.
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

// checkPlace refuses a root that is not the place where the base is mounted. The pool is
// asked for its altroot only where the two differ.
func checkPlace(ctx context.Context, pool *zfs.Client, base layout.Base, place, root string) error {
	if filepath.Clean(root) == filepath.Clean(place) {
		return nil
	}
	altroot, err := pool.Altroot(ctx)
	if err != nil || Place(altroot, root) == filepath.Clean(place) {
		return err
	}
	return fmt.Errorf("root is %s, but dataset %s has its mountpoint at %s: make them agree; 'zfs set mountpoint=%s %s' moves it",
		root, base, place, Mountpoint(altroot, root), base)
}
