package ioctl

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"os"
	"syscall"
)

// ObjectRange is a range of object numbers, First and Last included.
type ObjectRange struct {
	First, Last uint64
	// Free is true if the objects do not exist in the later snapshot; they may
	// never have existed. Otherwise they exist and may have changed.
	Free bool
}

// Diff returns the objects that differ between two snapshots, in the order of their
// numbers. The result is as exact as the blocks of their metadata: an object next to a
// changed one is included. Free ranges begin at 0 and end far after the last object.
// The earlier snapshot is of the same file system or of an origin.
//
// Diff reads metadata only, and neither snapshot needs to be mounted. It ends with
// ctx.
//
//	EXDEV    from is not an older ancestor of to
//	EINVAL   one of them is not a snapshot
func (h *Handle) Diff(ctx context.Context, from, to string) ([]ObjectRange, error) {
	const op = "diff"
	file, err := memoryFile("zfs-diff")
	if err != nil {
		return nil, fail(op, to, err)
	}
	defer file.Close()
	c := newCommand(to)
	defer c.free()
	c.value, c.cookie = from, uint64(file.Fd())
	if err := h.wait(ctx, reqDiff, c, func() error { return empty(file) }); err != nil {
		return nil, fail(op, to, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, fail(op, to, err)
	}
	records, err := io.ReadAll(file)
	if err != nil {
		return nil, fail(op, to, err)
	}
	list, err := objectRanges(records)
	return list, fail(op, to, err)
}

func empty(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.Seek(0, io.SeekStart)
	return err
}

// objectRanges parses the kernel's records: three numbers each.
func objectRanges(b []byte) ([]ObjectRange, error) {
	const (
		size        = 24
		none, inUse = 1, 2
		free        = 4
	)
	if len(b)%size != 0 {
		return nil, syscall.EIO
	}
	le := binary.LittleEndian
	list := make([]ObjectRange, 0, len(b)/size)
	for ; len(b) > 0; b = b[size:] {
		r := ObjectRange{First: le.Uint64(b[8:]), Last: le.Uint64(b[16:])}
		switch le.Uint64(b) {
		case none:
			continue
		case inUse:
		case free:
			r.Free = true
			// Beyond the addressable objects the kernel's arithmetic
			// overflows, which gives a range without meaning.
			if r.First == 0 && r.Last == math.MaxUint64 {
				continue
			}
		default:
			return nil, syscall.EIO
		}
		list = append(list, r)
	}
	return list, nil
}
