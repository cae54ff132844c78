package ioctl

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Options are options of Open.
type Options struct {
	// Device is the device to open; the default is "/dev/zfs".
	Device string
	// SelfTest is run by Open, which fails if it fails. See Handle.SelfTest for one.
	SelfTest func(context.Context, *Handle) error
}

// Handle is an open /dev/zfs. Any number of goroutines may use it; calls that have
// begun finish after Close.
type Handle struct {
	file    *os.File
	conn    syscall.RawConn
	version Version
}

const (
	devicePath  = "/dev/zfs"
	versionPath = "/sys/module/zfs/version"
)

// Open opens the device of the kernel module. It fails with ErrUnsupported if ZFS is
// missing or of an unsupported release.
func Open(ctx context.Context, o Options) (*Handle, error) {
	if err := ctx.Err(); err != nil {
		return nil, fail("open", "", err)
	}
	if !platform || binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, fail("open", "", fmt.Errorf("%w: not a little-endian 64-bit Linux", ErrUnsupported))
	}
	version, err := readVersion(versionPath)
	if err != nil {
		return nil, fail("open", "", err)
	}
	if !version.known() {
		return nil, fail("open", "", fmt.Errorf("%w: release %s", ErrUnsupported, version))
	}
	path := o.Device
	if path == "" {
		path = devicePath
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fail("open", "", err)
	}
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fail("open", "", err)
	}
	h := &Handle{file: file, conn: conn, version: version}
	if o.SelfTest != nil {
		if err := o.SelfTest(ctx, h); err != nil {
			file.Close()
			return nil, fail("self-test", "", err)
		}
	}
	return h, nil
}

// Close closes the device. Later calls fail with EBADF.
func (h *Handle) Close() error { return h.file.Close() }

// Version returns the release of the module.
func (h *Handle) Version() Version { return h.version }

// Version is a release of OpenZFS.
type Version struct {
	Major, Minor, Patch int
	Text                string // as in "2.4.4-1~bpo13+1"
}

func (v Version) String() string { return v.Text }

// AtLeast reports whether the release is major.minor or later.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// known reports whether the layout of the release was compared.
func (v Version) known() bool { return v.Major == 2 && 1 <= v.Minor && v.Minor <= 4 && v.Patch != 99 }

func readVersion(path string) (Version, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Version{}, fmt.Errorf("%w: the kernel module is not loaded: %w", ErrUnsupported, err)
	}
	return parseVersion(strings.TrimSpace(string(b)))
}

func parseVersion(text string) (Version, error) {
	v := Version{Text: text}
	if n, err := fmt.Sscanf(text, "%d.%d.%d", &v.Major, &v.Minor, &v.Patch); err != nil || n != 3 {
		return Version{}, fmt.Errorf("%w: release %q", ErrUnsupported, text)
	}
	return v, nil
}
