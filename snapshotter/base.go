package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// layoutVersion is what VersionProperty says on a base this code can work with.
const layoutVersion = "1"

// BasePool is what making a base needs of ZFS.
type BasePool interface {
	List(ctx context.Context, root string) ([]zfs.Dataset, error)
	Create(ctx context.Context, filesystem string, props map[string]string) error
	Apply(ctx context.Context, ops ...zfs.Op) error
}

// baseProperties are set once, on the base, and inherited by every clone: to
// set one on a clone costs a transaction each time.
var baseProperties = map[string]string{
	VersionProperty:         layoutVersion,
	"canmount":              "on",
	"xattr":                 "sa",    // in the inode, not in a hidden directory
	"acltype":               "posix", // off by default on Linux
	"atime":                 "off",
	"dnodesize":             "auto", // room for the xattrs
	"exec":                  "on",
	"setuid":                "on",
	"devices":               "on",
	"readonly":              "off",
	"compression":           "lz4",
	"com.sun:auto-snapshot": "false", // zfs-auto-snapshot's own opt-out
}

// childProperties keep templates and runtimes from being mounted by anybody
// but those who mean to.
var childProperties = map[string]string{"canmount": "off", "mountpoint": "legacy"}

// InitBase makes base, mounted at root, or completes one that it made before.
// props are further native properties, which win over those of ours. It
// answers whether there was anything to do.
func InitBase(ctx context.Context, pool BasePool, base layout.Base, root string, props map[string]string) (bool, error) {
	list, err := pool.List(ctx, base.String())
	switch {
	case errors.Is(err, zfs.ErrNotFound):
		all := maps.Clone(baseProperties)
		all["mountpoint"] = root
		maps.Copy(all, props)
		if err := pool.Create(ctx, base.String(), all); err != nil {
			return false, err
		}
		list = []zfs.Dataset{{Name: base.String()}}
	case err != nil:
		return false, err
	default:
		if err := CheckBase(base, list); err != nil {
			return false, fmt.Errorf("%w; choose a dataset that does not exist yet", err)
		}
	}
	return completeBase(ctx, pool, base, list)
}

func completeBase(ctx context.Context, pool BasePool, base layout.Base, list []zfs.Dataset) (changed bool, err error) {
	have := make(map[string]zfs.Dataset)
	for _, d := range list {
		have[d.Name] = d
	}
	empty := base.Empty()
	for _, child := range []struct {
		name  string
		props map[string]string
	}{{base.Storage(), childProperties}, {base.Runtime(), childProperties}, {empty.Dataset(), nil}} {
		if _, ok := have[child.name]; ok {
			continue
		}
		if err := pool.Create(ctx, child.name, child.props); err != nil {
			return changed, err
		}
		changed = true
	}
	if have[empty.Dataset()].HasSnapshot(layout.Extracted) {
		return changed, nil
	}
	return true, pool.Apply(ctx, zfs.Snapshot(empty.Snapshot()))
}

// CheckBase refuses a dataset that InitBase did not make.
func CheckBase(base layout.Base, list []zfs.Dataset) error {
	for _, d := range list {
		if d.Name == base.String() {
			return CheckVersion(base, d.Props[VersionProperty])
		}
	}
	return fmt.Errorf("dataset %s was not listed", base)
}

// CheckVersion refuses a base by the value that VersionProperty has on itself.
func CheckVersion(base layout.Base, version string) error {
	switch version {
	case layoutVersion:
		return nil
	case "":
		return fmt.Errorf("dataset %s is not a zfstpl base: it has no property %s", base, VersionProperty)
	default:
		release := "a newer zfstpl"
		if isOlder(version, layoutVersion) {
			release = "the release of zfstpl that made it"
		}
		return fmt.Errorf("dataset %s has layout version %s, this zfstpl knows %s: use %s", base, version, layoutVersion, release)
	}
}

func isOlder(version, than string) bool {
	a, err := strconv.Atoi(version)
	b, otherErr := strconv.Atoi(than)
	return err == nil && otherErr == nil && a < b
}

// baseError says what to do about a base that cannot be listed.
func baseError(base layout.Base, err error) error {
	if errors.Is(err, zfs.ErrNotFound) {
		return fmt.Errorf("dataset %s does not exist: make it with 'zfstpl init %s': %w", base, base, err)
	}
	return poolError(fmt.Sprintf("listing of %s", base), err)
}
