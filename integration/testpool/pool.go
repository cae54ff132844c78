package testpool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mistifyio/go-zfs/v4"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// DefaultSize of a pool's file. It is sparse.
const DefaultSize = 4 << 30

// Pool is a pool on a sparse file.
type Pool struct {
	Name string
	Dir  string // holds the file and every mountpoint of the pool
	pool *zfs.Zpool
}

// Available returns why no pool can be made here, or nil.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	if _, err := os.Stat("/dev/zfs"); err != nil {
		return errors.New("no ZFS: /dev/zfs is not there")
	}
	return nil
}

// Create makes a pool. Close takes it away.
func Create(size int64) (*Pool, error) { return CreateIn("", size) }

// CreateIn is Create for a pool whose file is in a directory ("" for that of
// temporary files): what befalls its file system befalls the pool.
func CreateIn(parent string, size int64) (*Pool, error) {
	dir, err := os.MkdirTemp(parent, "zfstpl-test-")
	if err != nil {
		return nil, err
	}
	p := &Pool{Name: "zfstpl-test-" + layout.NewID().String(), Dir: dir}
	if err := p.create(size); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

func (p *Pool) create(size int64) error {
	vdev := filepath.Join(p.Dir, "vdev")
	file, err := os.Create(vdev)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
		return err
	}
	// Neither the system's cache of pools nor its mounts hear of this one. What is
	// destroyed is punched out of the file: where it lies in memory, a long run would
	// fill that, and the pool be suspended.
	p.pool, err = zfs.CreateZpool(p.Name, map[string]string{"cachefile": "none", "autotrim": "on"},
		"-O", "mountpoint=none", vdev)
	if err != nil {
		return fmt.Errorf("pool %s: %w", p.Name, err)
	}
	return nil
}

func lookUp(name string) (*zfs.Zpool, error) { return zfs.GetZpool(name) }

// Close destroys the pool, which ends every mount of it that has no user, and
// returns what was still mounted.
func (p *Pool) Close(context.Context) error {
	left, err := p.Mounts("")
	if len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("still mounted: %s", strings.Join(left, ", ")))
	}
	if destroyErr := p.pool.Destroy(); destroyErr != nil {
		return errors.Join(err, fmt.Errorf("destroy of pool %s: %w", p.Name, destroyErr))
	}
	return errors.Join(err, os.RemoveAll(p.Dir))
}

// Mounts are the mountpoints, in this mount namespace, of dataset and all
// below it ("" for the whole pool).
func (p *Pool) Mounts(dataset string) ([]string, error) {
	if dataset == "" {
		dataset = p.Name
	}
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		in := i.Source == dataset || strings.HasPrefix(i.Source, dataset+"/") || strings.HasPrefix(i.Source, dataset+"@")
		return i.FSType != "zfs" || !in, false
	})
	var points []string
	for _, m := range found {
		points = append(points, m.Mountpoint)
	}
	return points, err
}

// Unmount detaches what a daemon left mounted in the directory of held mounts, the
// directory "mnt" next to its socket. Call it before that is removed: what a
// recursive removal finds in a held mount is a container's.
func Unmount(socket string) error {
	dir := filepath.Join(filepath.Dir(socket), "mnt")
	found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	for _, m := range found {
		err = errors.Join(err, unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	return err
}
