package mounts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Supported reports whether file systems can be held mounted on this system.
const Supported = true

// superMagic is the type of ZFS in statfs.
const superMagic = 0x2fc12fc1

func isZFS(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return uint32(st.Type) == superMagic, nil
}

// identify returns the mount at a directory, or the mount that contains the directory, and how
// many objects its file system has.
func identify(path string) (_ identity, objects uint64, err error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return identity{}, 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return identity{}, 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	mount, err := mountOf(fd)
	if err != nil {
		return identity{}, 0, fmt.Errorf("mount ID of %s: %w", path, err)
	}
	return identity{mount, st.Fsid.Val}, st.Files - min(st.Files, st.Ffree), nil
}

// sameDirectory reports whether a path leads from a root directory to the directory to which
// it leads in this process.
func sameDirectory(root, path string) (bool, error) {
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	here, err := statAt(unix.Open(path, flags, 0))
	if err != nil {
		return false, &os.PathError{Op: "open", Path: path, Err: err}
	}
	dir, err := unix.Open(root, flags, 0)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	there, err := statAt(unix.Openat2(dir, path, &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}))
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return false, nil
	case err != nil:
		return false, &os.PathError{Op: "openat2", Path: root + path, Err: err}
	}
	return here.Dev == there.Dev && here.Ino == there.Ino, nil
}

// statAt returns the status of a file that was opened, and closes it.
func statAt(fd int, err error) (st unix.Stat_t, _ error) {
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	err = unix.Fstat(fd, &st)
	return st, err
}

// mountOf returns the ID of the mount that a descriptor was opened on. Linux before 5.8 returns
// it only in /proc, which takes several times as long.
func mountOf(fd int) (int, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st)
	if err == nil && st.Mask&unix.STATX_MNT_ID != 0 {
		return int(st.Mnt_id), nil
	}
	return mountInProc(fd)
}

// mountInProc is mountOf for old kernels.
func mountInProc(fd int) (int, error) {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(id))
		}
	}
	return 0, errors.New("fdinfo has no mnt_id")
}

func readMounts(dir string) (table, error) {
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return filepath.Dir(i.Mountpoint) != dir, false
	})
	if err != nil {
		return table{}, fmt.Errorf("reading the mount table: %w", err)
	}
	t := table{make(map[string]entry), make(map[int]bool)}
	for _, i := range found { // at one path, the topmost mount comes last
		e := entry{mount: i.ID}
		if i.FSType == "zfs" {
			e.source, e.whole = i.Source, i.Root == "/" && !slices.Contains(strings.Split(i.Options, ","), "ro")
		}
		t.top[i.Mountpoint], t.all[i.ID] = e, true
	}
	return t, nil
}

// isolate ends the propagation of mounts below a held mount. A bind of a shared mount
// is its peer: without this, a mount that a client creates below its bind appears
// below the held mount and every other bind. Unmounting the held mount still
// propagates, because that uses the mount of the directory.
func isolate(path string) error {
	return os.NewSyscallError("mount", unix.Mount("", path, "", unix.MS_PRIVATE, ""))
}

// detach unmounts what is mounted at a path, even if it is in use.
func detach(path string) error {
	return unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}

func isBusyOrNotEmpty(err error) bool {
	return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY)
}
