package zfs

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

var allKinds = []error{
	ErrExists, ErrNotFound, ErrBusy, ErrHasClones, ErrForeign, ErrNoSpace, ErrQuota, ErrPermission, ErrInvalid, ErrSuspended, ErrUnavailable,
}

// assertKind asserts that err has that kind and no other, or none if kind is nil.
func assertKind(t *testing.T, kind, err error) {
	t.Helper()
	for _, k := range allKinds {
		assert.Equal(t, k == kind, errors.Is(err, k), "is %q: %q", err, k)
	}
}

// The messages are what OpenZFS 2.1 to 2.4 print under LC_ALL=C.
func TestMessagesHaveKinds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		stderr string
		kind   error
	}{
		{"cannot create 'tank/a': dataset already exists\n", ErrExists},
		{"cannot create snapshot 'tank/a@x': dataset already exists\n", ErrExists},
		{"cannot open 'tank/a': dataset does not exist\n", ErrNotFound},
		{"cannot create 'tank/a/b': parent does not exist\n", ErrNotFound},
		{"cannot open 'tank': no such pool\n", ErrNotFound},
		{"could not find any snapshots to destroy; check snapshot names.\n", nil},
		{"cannot destroy 'tank/a': filesystem has children\nuse '-r' to destroy the following datasets:\ntank/a/b\n", ErrHasClones},
		{"cannot destroy 'tank/a': filesystem has dependent clones\nuse '-R' to destroy the following datasets:\ntank/b\n", ErrHasClones},
		{"cannot destroy snapshot tank/a@x: snapshot has dependent clones\nuse '-R' to destroy the following datasets:\ntank/b\n", ErrHasClones},
		{"cannot destroy 'tank/a': dataset is busy\n", ErrBusy},
		{"cannot unmount '/mnt/a': pool or dataset is busy\n", ErrBusy},
		{"cannot create 'tank/a': out of space\n", ErrNoSpace},
		{"cannot create 'tank/a': No space left on device\n", ErrNoSpace},
		{"cannot set property for 'tank/a': Disk quota exceeded\n", ErrQuota},
		{"cannot open 'tank': pool I/O is currently suspended\n", ErrSuspended},
		{"The ZFS modules cannot be auto-loaded.\nTry running 'modprobe zfs' as root to manually load them.\n", ErrUnavailable},
		{"The ZFS modules are not loaded.\nTry running 'modprobe zfs' as root to load them.\n", ErrUnavailable},
		{"/dev/zfs and /proc/self/mounts are required.\nTry running 'udevadm trigger' and 'mount -t proc proc /proc' as root.\n", ErrUnavailable},
		{"Permission denied the ZFS utilities must be run as root.\n", ErrPermission},
		{"cannot create 'tank/a': permission denied\n", ErrPermission},
		{"Channel program execution failed:\nPermission denied. Channel programs must be run as root.\n", ErrPermission},
		{"cannot create 'tank/a!': invalid character '!' in name\n", ErrInvalid},
		{"cannot create 'tank/a': name is too long\n", ErrInvalid},
		{"cannot create 'tank': invalid property 'nonsense'\n", ErrInvalid},
		{"cannot create 'tank/a': 'recordsize' must be power of 2 from 512B to 16M\n", ErrInvalid},
		{"bad property list: invalid property 'x'\n", ErrInvalid},
		{"Channel program execution failed:\nMemory limit exhausted.\n", nil},
		{"internal error: Numerical result out of range\n", nil},
		{"an unknown message\n", nil},
	} {
		err := messageError("create", "tank/a", c.stderr)
		assertKind(t, c.kind, err)
		assert.NotContains(t, err.Error(), "\n")
		assert.Contains(t, err.Error(), "zfs create tank/a")
	}
}

// The name of a dataset is not matched as a message.
func TestNamesInMessagesAreIgnored(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		stderr string
		kind   error
	}{
		{"cannot create 'tank/dev/zfstpl': permission denied\n", ErrPermission},
		{"cannot mount 'tank/dev/zfstpl': Numerical result out of range\n", nil},
		{"cannot mount 'tank/invalid': Numerical result out of range\n", nil},
	} {
		assertKind(t, c.kind, messageError("create", "tank/dev/zfstpl", c.stderr))
	}
}

func TestErrnosHaveKinds(t *testing.T) {
	t.Parallel()
	for errno, kind := range map[syscall.Errno]error{
		syscall.EEXIST: ErrExists, syscall.ENOENT: ErrNotFound, syscall.EBUSY: ErrBusy, syscall.ENOSPC: ErrNoSpace,
		syscall.EDQUOT: ErrQuota, syscall.EPERM: ErrPermission, syscall.EACCES: ErrPermission, syscall.EINVAL: ErrInvalid,
		syscall.ENAMETOOLONG: ErrInvalid, syscall.E2BIG: ErrInvalid, syscall.EXDEV: ErrInvalid, syscall.EAGAIN: ErrSuspended,
		syscall.EIO: nil, syscall.ERANGE: nil, syscall.ENODEV: nil,
	} {
		err := errnoError("clone", "tank/a", errno)
		assertKind(t, kind, err)
		assert.Contains(t, err.Error(), "zfs clone tank/a")
		if kind == nil {
			assert.Contains(t, err.Error(), errno.Error(), "an error without a kind has the text of the errno")
		}
	}
}

func TestDestroyCodesHaveKinds(t *testing.T) {
	t.Parallel()
	for code, kind := range map[int]error{1001: ErrHasClones, 1002: ErrForeign, 16: ErrBusy, 28: ErrNoSpace, 9999: nil} {
		assertKind(t, kind, destroyError("tank/a", code))
	}
	lost := destroyError("tank/a", 2016)
	assert.ErrorIs(t, lost, ErrBusy)
	assert.Equal(t, "zfs destroy tank/a: busy; its snapshot was destroyed and could not be taken again, because the file system was modified or the pool is full", lost.Error())
	assert.Contains(t, destroyError("tank/a", 1002).Error(), "zfs list -t snapshot tank/a", "the error has the command")
}

func TestErrorTextHasKindAndDetail(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "zfs list tank", (&Error{Op: "list", Dataset: "tank"}).Error())
	assert.Equal(t, "zfs list tank: busy", (&Error{Op: "list", Dataset: "tank", Kind: ErrBusy}).Error())
	assert.Equal(t, "zfs list tank: detail", (&Error{Op: "list", Dataset: "tank", Detail: "detail"}).Error())
	assert.Equal(t, "zfs list tank: busy: detail", (&Error{Op: "list", Dataset: "tank", Kind: ErrBusy, Detail: "detail"}).Error())
}
