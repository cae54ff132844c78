package plugin

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

var mountNumber = regexp.MustCompile(`(?m)^mnt_id:\s*(\d+)$`)

// mountOf returns the mount of an open directory. Tests replace it if their base is a
// plain directory.
var mountOf = realMountOf

func realMountOf(root *os.Root) (*mountinfo.Info, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", dir.Fd()))
	if err != nil {
		return nil, err
	}
	number := mountNumber.FindSubmatch(text)
	if number == nil {
		return nil, fmt.Errorf("the kernel does not report the mount of %s", root.Name())
	}
	id, _ := strconv.Atoi(string(number[1])) // it has digits only
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.ID != id, i.ID == id })
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("the mount table does not have the mount of %s", root.Name())
	}
	return found[0], nil
}

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
