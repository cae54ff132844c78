package setup

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// layoutVersion is the greatest value of VersionProperty that this package supports. Version 2
// has the log: the properties of a base alone do not say which runtimes are in use.
const layoutVersion = 2

// VersionWithLog is the value of VersionProperty of a base that has a log.
const VersionWithLog = "2"

// Pool has the operations of ZFS that this package needs.
type Pool interface {
	Release(ctx context.Context) (zfs.Release, error)
	Features(ctx context.Context, names ...string) (map[string]bool, error)
	List(ctx context.Context, root string) ([]zfs.Dataset, error)
	Create(ctx context.Context, filesystem string, props map[string]string) error
	Mount(ctx context.Context, filesystem string) error
	SetNative(ctx context.Context, filesystem string, props map[string]string) error
	Apply(ctx context.Context, ops ...zfs.Op) error
	Properties(ctx context.Context, filesystem string, names ...string) (map[string]zfs.Property, error)
	PropertiesOf(ctx context.Context, filesystems, names []string) (map[string]map[string]zfs.Property, error)
	Destroy(ctx context.Context, own string, filesystems []string) (map[string]error, error)
	DestroySnapshot(ctx context.Context, snapshot string) error
}

// childProperties are the properties of storage and runtime. They keep ZFS from mounting
// templates and runtimes.
var childProperties = map[string]string{"canmount": "off", "mountpoint": "legacy"}

// Init creates base, mounted at root, or completes a base that it created before.
// props are additional native properties, which override the defaults. Init reports
// whether it changed anything. If it fails, it destroys only what this call created.
func Init(ctx context.Context, pool Pool, base layout.Base, root string, props map[string]string) (bool, error) {
	list, err := pool.List(ctx, base.String())
	exists := err == nil
	switch {
	case errors.Is(err, zfs.ErrNotFound):
	case err != nil:
		return false, err
	default:
		if err := Check(base, list); err != nil {
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

// Check returns an error if Init did not create the base in list, or if its layout
// version is not supported.
func Check(base layout.Base, list []zfs.Dataset) error {
	for _, d := range list {
		if d.Name == base.String() {
			return CheckVersion(base, d.Props[layout.VersionProperty])
		}
	}
	return fmt.Errorf("dataset %s was not listed", base)
}

// CheckVersion returns an error unless version, the base's value of VersionProperty, is
// supported.
func CheckVersion(base layout.Base, version string) error {
	switch version {
	case "1", VersionWithLog:
		return nil
	case "":
		return fmt.Errorf("dataset %s is not a zfstpl base: it has no property %s", base, layout.VersionProperty)
	default:
		release := "a newer zfstpl"
		if v, err := strconv.Atoi(version); err == nil && v < 1 {
			release = "the release of zfstpl that made it"
		}
		return fmt.Errorf("dataset %s has layout version %s, this zfstpl supports %d: use %s", base, version, layoutVersion, release)
	}
}

// The properties that CheckKey reads.
const (
	KeyStatus      = "keystatus"
	EncryptionRoot = "encryptionroot"
)

var keyProperties = []string{KeyStatus, EncryptionRoot}

// CheckKey returns an error if the properties of a dataset show that its key is not loaded.
func CheckKey(dataset string, props map[string]zfs.Property) error {
	if props[KeyStatus].Value != "unavailable" {
		return nil
	}
	return fmt.Errorf("dataset %s is encrypted and its key is not loaded: run 'zfs load-key %s'", dataset, props[EncryptionRoot].Value)
}

// ListError adds to the error of a failed listing what to do about it.
func ListError(base layout.Base, err error) error {
	if errors.Is(err, zfs.ErrNotFound) {
		return fmt.Errorf("dataset %s does not exist: make it with 'zfstpl init %s': %w", base, base, err)
	}
	return errkind.Wrap(fmt.Sprintf("listing of %s", base), err)
}
