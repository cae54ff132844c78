//go:build linux

package rig

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/ioctl"
)

// Options say on what to measure.
type Options struct {
	// Bin and ContainerdBin are directories of programs; what is not there is
	// looked for in PATH.
	Bin, ContainerdBin string
	// Pool, Ext4 and Btrfs are devices whose content is lost, or empty for
	// sparse files.
	Pool, Ext4, Btrfs string
	// Dir is where the temporary directory is made.
	Dir string
}

// Rig is a pool and file systems to measure on.
type Rig struct {
	Options
	// Name is the pool's, unlike that of any other.
	Name string
	ZFS  *ioctl.Handle
	dir  string
	// closers take down what was set up, the last first.
	closers []func() error
}

// fileSize is that of the sparse files that stand in for devices.
const fileSize = 24 << 30

// New makes the pool and the file systems. Close takes them down even after an
// error.
func New(ctx context.Context, o Options) (*Rig, error) {
	r := &Rig{Options: o, Name: "zfstpl-bench-" + strings.ToLower(rand.Text()[:8])}
	if err := r.preparePath(); err != nil {
		return r, err
	}
	dir, err := os.MkdirTemp(o.Dir, "zfstpl-bench-")
	if err != nil {
		return r, err
	}
	r.dir = dir
	r.onClose(func() error { return os.RemoveAll(dir) })
	mounts := r.Path("mounts")
	if err := os.Mkdir(mounts, 0o700); err != nil {
		return r, err
	}
	if err := mount.SetTempMountLocation(mounts); err != nil {
		return r, err
	}
	if err := r.makePool(ctx); err != nil {
		return r, err
	}
	if r.ZFS, err = ioctl.Open(ctx); err != nil {
		return r, err
	}
	r.onClose(r.ZFS.Close)
	if err := r.makeFileSystem(ctx, "ext4", r.Ext4, "mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0"); err != nil {
		return r, err
	}
	return r, r.makeFileSystem(ctx, "btrfs", r.Btrfs, "mkfs.btrfs", "-q", "-f")
}

// Close takes everything down, whatever of it fails.
func (r *Rig) Close() error {
	var err error
	for i := len(r.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, r.closers[i]())
	}
	r.closers = nil
	return err
}

func (r *Rig) onClose(f func() error) { r.closers = append(r.closers, f) }

// Path is a path in the temporary directory.
func (r *Rig) Path(elements ...string) string {
	return filepath.Join(append([]string{r.dir}, elements...)...)
}

// Dataset is the name of a dataset of the pool.
func (r *Rig) Dataset(name string) string { return r.Name + "/" + name }

func (r *Rig) preparePath() error {
	var path []string
	for _, dir := range []string{r.Bin, r.ContainerdBin} {
		if dir == "" {
			continue
		}
		absolute, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		path = append(path, absolute)
	}
	path = append(path, os.Getenv("PATH"), "/usr/local/sbin:/usr/sbin:/sbin")
	return os.Setenv("PATH", strings.Join(path, ":"))
}

// makePool makes a pool that no cache file remembers.
func (r *Rig) makePool(ctx context.Context) error {
	device, err := r.device(r.Pool, "pool.img")
	if err != nil {
		return err
	}
	_, err = Run(ctx, "zpool", "create", "-o", "cachefile=none", "-O", "mountpoint=none", "-O", "canmount=off", r.Name, device)
	if err != nil {
		return err
	}
	r.onClose(r.destroyPool)
	return nil
}

// destroyPool waits for the kernel to let go of what has just ended.
func (r *Rig) destroyPool() error {
	var err error
	for range 30 {
		if _, err = Run(context.Background(), "zpool", "destroy", r.Name); err == nil {
			return nil
		}
		time.Sleep(time.Second)
	}
	return err
}

// device returns the device, or makes a sparse file in place of one.
func (r *Rig) device(named, file string) (string, error) {
	if named != "" {
		return named, nil
	}
	path := r.Path(file)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(f.Truncate(fileSize), f.Close())
}

// makeFileSystem makes and mounts a file system at Path(kind).
func (r *Rig) makeFileSystem(ctx context.Context, kind, named string, mkfs ...string) error {
	device, err := r.device(named, kind+".img")
	if err != nil {
		return err
	}
	if _, err := Run(ctx, append(mkfs, device)...); err != nil {
		return err
	}
	point := r.Path(kind)
	if err := os.Mkdir(point, 0o700); err != nil {
		return err
	}
	args := []string{"mount", "-t", kind}
	if named == "" {
		args = append(args, "-o", "loop")
	}
	if _, err := Run(ctx, append(args, device, point)...); err != nil {
		return err
	}
	r.onClose(func() error {
		_, err := Run(context.Background(), "umount", point)
		return err
	})
	return nil
}

// MakeDataset makes a dataset with the properties that a base of zfstpl has,
// so that none has an advantage of them. It is mounted at Path(name), or
// nowhere.
func (r *Rig) MakeDataset(ctx context.Context, name string, mounted bool) error {
	point := "legacy"
	if mounted {
		point = r.Path(name)
	}
	_, err := Run(ctx, "zfs", "create", "-o", "mountpoint="+point, "-o", "canmount=on", "-o", "xattr=sa",
		"-o", "acltype=posix", "-o", "atime=off", "-o", "dnodesize=auto", "-o", "compression=lz4", r.Dataset(name))
	return err
}

// Reclaimed reports whether the pool is not freeing anything any more.
func (r *Rig) Reclaimed(ctx context.Context) (bool, error) {
	pool, err := r.ZFS.Pool(ctx, r.Name)
	return pool.Freeing == 0, err
}
