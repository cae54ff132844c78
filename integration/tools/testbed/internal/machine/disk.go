package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Disk is an extra disk of the guest: a sparse raw file with one partition.
type Disk struct {
	Path string
	file *os.File
}

// OpenDisk opens the image at path, or makes one of the size. While it is
// open no other run can open it. An image that exists keeps its content, and
// must have the size, where one is given.
func OpenDisk(path string, size int64) (*Disk, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	disk := &Disk{Path: path, file: file}
	if err := disk.prepare(size); err != nil {
		return nil, errors.Join(fmt.Errorf("disk %s: %w", path, err), file.Close())
	}
	return disk, nil
}

func (d *Disk) prepare(size int64) error {
	err := syscall.Flock(int(d.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errors.New("another run uses it")
	}
	if err != nil {
		return err
	}
	info, err := d.file.Stat()
	if err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("not a regular file: %w", fs.ErrInvalid)
	case info.Size() == 0:
		return d.initialize(size)
	case size != 0 && size != info.Size():
		return fmt.Errorf("it has %d bytes, not %d", info.Size(), size)
	}
	return nil
}

func (d *Disk) initialize(size int64) error {
	table, err := partitionTable(size)
	if err != nil {
		return err
	}
	// The table first: with only the size, it would be taken for complete.
	if _, err := d.file.WriteAt(table, 0); err != nil {
		return err
	}
	return d.file.Truncate(size)
}

// Close lets other runs open the disk.
func (d *Disk) Close() error {
	return d.file.Close()
}
