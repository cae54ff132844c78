package plugin

import (
	"errors"

	"golang.org/x/sys/unix"
)

var errCovered = errors.New("another mount covers it")

// unmount unmounts the mount with that ID, which the mount table shows at path. It
// returns an error if the mount is busy, and errCovered if another mount covers it.
func unmount(id int, path string) error {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
	covered := err == nil && st.Mask&unix.STATX_MNT_ID != 0 && st.Mnt_id != uint64(id)
	if covered || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return errCovered
	}
	if err != nil {
		return err
	}
	return unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
}
