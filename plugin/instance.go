package plugin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/log"
	"github.com/moby/sys/mountinfo"

	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/diff"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Instance is a snapshotter that owns its base.
type Instance struct {
	*snapshotter.Snapshotter
	Root string // where the base is mounted
	base layout.Base
	pool *zfs.Client
	root *os.Root // the base's directory; a later mount does not cover it
	lock *baseLock
}

// Open locks the base of config for this process and returns its snapshotter. An error
// has one line and says what to do.
func Open(ctx context.Context, config Config) (*Instance, error) {
	return openFor(ctx, config, purposeServing+config.Address)
}

// openFor is Open with the purpose that is written into the base's lock.
func openFor(ctx context.Context, config Config, purpose string) (*Instance, error) {
	return newInstance(ctx, config, func(i *Instance) error { return i.open(ctx, config, purpose) })
}

// newInstance returns an instance that open has opened. open is given one that has only a
// client for its pool. If open fails, newInstance closes the instance.
func newInstance(ctx context.Context, config Config, open func(*Instance) error) (*Instance, error) {
	base, err := config.Check()
	if err != nil {
		return nil, err
	}
	pool, err := OpenPool(ctx, base, config.ZFSClient)
	if err != nil {
		return nil, err
	}
	i := &Instance{base: base, pool: pool}
	if err = writable(pool, base); err == nil {
		err = open(i)
	}
	if err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

// own mounts and locks the base for this process. It returns the properties of the base
// that do harm.
func (i *Instance) own(ctx context.Context, config Config, purpose string) (harms []setup.Harm, err error) {
	watch(i.pool)
	if err := i.mount(ctx, config); err != nil {
		return nil, err
	}
	if i.lock, err = lockBase(ctx, i.root, i.base, purpose); err != nil {
		return nil, err
	}
	i.pool.Hold(i.lock.file)
	if harms, err = fixBase(ctx, i.pool, i.base); err != nil {
		return nil, err
	}
	if err := setup.FixLog(ctx, i.pool, i.base); err != nil {
		log.G(ctx).WithError(err).WithField("dataset", i.base.String()).Warn("failed to set properties of log")
	}
	return harms, nil
}

// checkLog returns the reason why the log of the base cannot be used.
func (i *Instance) checkLog(ctx context.Context) error { return setup.CheckLog(ctx, i.pool, i.base) }

// mount mounts the base and opens its directory.
func (i *Instance) mount(ctx context.Context, config Config) (err error) {
	if i.Root, err = mountBase(ctx, i.pool, i.base, config.Root); err != nil {
		return err
	}
	i.root, err = openRoot(i.base, i.Root)
	return err
}

// settings returns the configuration of the snapshotter.
func (i *Instance) settings(config Config) snapshotter.Config {
	return snapshotter.Config{
		Base:          i.base,
		CacheKeep:     config.Cache.Keep.Duration,
		CacheMaxBytes: config.Cache.MaxBytes.Bytes,
		Pressure:      config.Cache.Pressure,
		OwnTemplates:  !config.ShareLayers,
		ReuseLayers:   config.ReuseLayers,
		ReuseLayersIn: config.ReuseLayersIn,
		Foreign:       config.ForeignSnapshots,
		Quota:         config.ContainerQuota.Bytes,
		Cleanup:       config.Cleanup.Mode,
		Ready:         config.ReadyRuntimes,
		Root:          i.root,
		CheckLog:      i.checkLog,
		MountDir:      filepath.Join(filepath.Dir(config.Address), "mnt"),
		Mounts:        config.Mounts,
	}
}

// slowStart is the time after which a start is logged as a slow one.
const slowStart = 2 * time.Second

func (i *Instance) open(ctx context.Context, config Config, purpose string) error {
	harms, err := i.own(ctx, config, purpose)
	if err != nil {
		return err
	}
	// The log shows what takes so long. A start that fails soon logs only its error.
	slow := time.AfterFunc(slowStart, func() {
		log.G(ctx).WithField("dataset", i.base.String()).Info("listing the base")
	})
	defer slow.Stop()
	for _, h := range harms {
		h.Log(ctx)
	}
	i.Snapshotter, err = snapshotter.New(ctx, i.pool, i.settings(config))
	if err != nil {
		return err
	}
	kind, why := i.pool.Kind()
	entry := log.G(ctx).WithField("client", kind)
	if why != nil {
		entry = entry.WithField("reason", why)
	}
	entry.Info("selected ZFS client")
	return nil
}

// Dataset returns the name of the base.
func (i *Instance) Dataset() string { return i.base.String() }

// Differ returns the diff service of the instance's snapshots, which reads and stores
// layers in contents.
func (i *Instance) Differ(contents diff.Contents) *diff.Service {
	return diff.New(i.base, i.pool, contents, i.Snapshotter)
}

// Healthy returns an error if the base cannot be used: the pool is suspended, or not
// imported any more.
func (i *Instance) Healthy(ctx context.Context) error {
	state, err := i.pool.State(ctx)
	if err == nil && state.Suspended {
		err = fmt.Errorf("pool %s: %w", i.base.Pool(), zfs.ErrSuspended)
	}
	return err
}

// Close closes the snapshotter and unlocks the base.
func (i *Instance) Close() error {
	var errs []error
	if i.Snapshotter != nil {
		errs = append(errs, i.Snapshotter.Close())
	}
	errs = append(errs, i.pool.Close())
	if i.lock != nil {
		errs = append(errs, i.lock.file.Close())
	}
	if i.root != nil {
		errs = append(errs, i.root.Close())
	}
	return errors.Join(errs...)
}

// OpenPool returns a client for the pool of base.
func OpenPool(ctx context.Context, base layout.Base, choice zfs.Choice) (*zfs.Client, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("zfstpl administers ZFS and must be started as root")
	}
	pool, err := zfs.Open(ctx, base.String(), layout.PropertyPrefix, choice)
	switch {
	case errors.Is(err, zfs.ErrUnavailable):
		return nil, fmt.Errorf("ZFS is not available on this machine: install it and load the module with 'modprobe zfs' (%w)", err)
	case errors.Is(err, zfs.ErrNotFound):
		return nil, fmt.Errorf("pool %s is not imported: 'zpool import' lists the pools that can be imported, 'zpool create' creates one", base.Pool())
	}
	return pool, err
}

// writable returns an error if the pool is imported read-only.
func writable(pool *zfs.Client, base layout.Base) error {
	if !pool.ReadOnly() {
		return nil
	}
	return fmt.Errorf("pool %s is imported read-only: 'zpool export %s' and 'zpool import %s' make it writable", base.Pool(), base.Pool(), base.Pool())
}

// mountBase mounts the base unless it is mounted, and returns where. The kubelet reads
// the free space of the image file system there.
func mountBase(ctx context.Context, pool *zfs.Client, base layout.Base, want string) (string, error) {
	props, err := pool.Properties(ctx, base.String(), "mountpoint", layout.VersionProperty, setup.KeyStatus, setup.EncryptionRoot)
	if errors.Is(err, zfs.ErrNotFound) {
		return "", fmt.Errorf("dataset %s does not exist: make it with 'zfstpl init %s'", base, base)
	}
	if err != nil {
		return "", err
	}
	version := ""
	if v := props[layout.VersionProperty]; v.Local {
		version = v.Value
	}
	if err := setup.CheckVersion(base, version); err != nil {
		return "", fmt.Errorf("%w: name the dataset that 'zfstpl init' made", err)
	}
	root := props["mountpoint"].Value
	if !filepath.IsAbs(root) {
		return "", fmt.Errorf("dataset %s has mountpoint=%s: set a mountpoint, such as 'zfs set mountpoint=%s %s'", base, root, DefaultRoot, base)
	}
	if want != "" {
		if err := checkPlace(ctx, pool, base, root, want); err != nil {
			return "", err
		}
	}
	if err := setup.CheckKey(base.String(), props); err != nil {
		return "", err
	}
	mounted, err := mountedAt(base.String(), root)
	if err != nil {
		return "", err
	}
	if !mounted {
		if err := pool.Mount(ctx, base.String()); err != nil {
			return "", err
		}
	}
	return root, nil
}

func mountedAt(source, target string) (bool, error) {
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		hit := i.FSType == "zfs" && i.Source == source && i.Mountpoint == filepath.Clean(target)
		return !hit, hit
	})
	if err != nil {
		return false, fmt.Errorf("reading the mount table: %w", err)
	}
	return len(found) > 0, nil
}
