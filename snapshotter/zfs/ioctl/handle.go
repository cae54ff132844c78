package ioctl

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Handle is an open /dev/zfs. Any number of goroutines may use it; calls that have
// begun finish after Close.
type Handle struct {
	file *os.File
	conn syscall.RawConn
}

const (
	devicePath  = "/dev/zfs"
	versionPath = "/sys/module/zfs/version"
)

// Open opens the device of the kernel module. It fails with ErrUnsupported if ZFS is
// missing or of an unsupported release. Before other calls, SelfTest should pass.
func Open(ctx context.Context) (*Handle, error) {
	h, err := openAt(ctx, versionPath, devicePath)
	return h, fail("open", "", err)
}

func openAt(ctx context.Context, version, device string) (*Handle, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !platform || binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, fmt.Errorf("%w: not a little-endian 64-bit Linux", ErrUnsupported)
	}
	release, err := os.ReadFile(version)
	if err != nil {
		return nil, fmt.Errorf("%w: the kernel module is not loaded: %w", ErrUnsupported, err)
	}
	if err := checkRelease(strings.TrimSpace(string(release))); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Handle{file: file, conn: conn}, nil
}

// Close closes the device. Later calls fail with EBADF.
func (h *Handle) Close() error { return h.file.Close() }

// checkRelease returns an error for a release whose layout was not compared. Its text
// is as in "2.4.4-1~bpo13+1".
func checkRelease(text string) error {
	var major, minor, patch int
	if _, err := fmt.Sscanf(text, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return fmt.Errorf("%w: release %q", ErrUnsupported, text)
	}
	if major != 2 || minor < 1 || minor > 4 || patch == 99 {
		return fmt.Errorf("%w: release %s", ErrUnsupported, text)
	}
	return nil
}
