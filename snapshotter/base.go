package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// layoutVersion is what VersionProperty says on a base this code can work with.
const layoutVersion = "1"

// BasePool is what making a base needs of ZFS.
type BasePool interface {
	PropertyPool
	List(ctx context.Context, root string) ([]zfs.Dataset, error)
	Create(ctx context.Context, filesystem string, props map[string]string) error
	Mount(ctx context.Context, filesystem string) error
	SetNative(ctx context.Context, filesystem string, props map[string]string) error
	Apply(ctx context.Context, ops ...zfs.Op) error
	Properties(ctx context.Context, filesystem string, names ...string) (map[string]zfs.Property, error)
	Destroy(ctx context.Context, own string, filesystems []string) (map[string]error, error)
	DestroySnapshot(ctx context.Context, snapshot string) error
}

// childProperties keep templates and runtimes from being mounted by anybody
// but those who mean to.
var childProperties = map[string]string{"canmount": "off", "mountpoint": "legacy"}

// InitBase makes base, mounted at root, or completes one that it made before.
// props are further native properties, which win over those of ours. It
// reports whether there was anything to do. When it fails it destroys what it made in
// this call, and nothing else.
func InitBase(ctx context.Context, pool BasePool, base layout.Base, root string, props map[string]string) (bool, error) {
	list, err := pool.List(ctx, base.String())
	exists := err == nil
	switch {
	case errors.Is(err, zfs.ErrNotFound):
	case err != nil:
		return false, err
	default:
		if err := CheckBase(base, list); err != nil {
			return false, fmt.Errorf("%w; choose a dataset that does not exist yet", err)
		}
		props, err := pool.Properties(ctx, base.String(), keyProperties...)
		if err != nil {
			return false, err
		}
		if err := CheckKey(base.String(), props); err != nil {
			return false, err
		}
	}
	b := baseBuilder{pool: pool, base: base}
	if !exists {
		err = b.makeRoot(ctx, root, props)
	}
	if err == nil {
		err = b.complete(ctx, list)
	}
	if err == nil {
		return b.changed, nil
	}
	if rollBackErr := b.rollBack(context.WithoutCancel(ctx)); rollBackErr != nil {
		err = fmt.Errorf("%w; %w", err, rollBackErr)
	}
	return false, err
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
