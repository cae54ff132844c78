package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	return nil
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mountKernel mounts what the agent itself needs, still in the initramfs.
func mountKernel() error {
	return mountAll([]mount{
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"proc", "/proc", "proc", safe, ""},
		{"sysfs", "/sys", "sysfs", safe, ""},
	})
}

// enterRoot makes the root disk the root. As in any switch of roots, the new
// one is moved over the initramfs, which has no parent to be unmounted from.
func enterRoot() error {
	device, err := findDisk(RootSerial)
	if err != nil {
		return err
	}
	const root = "/root"
	// The image lives for one boot: there is no use in writing its inode
	// tables, and an error means that the host's disk failed or is full.
	err = mount{device, root, "ext4", unix.MS_NOATIME, "noinit_itable,errors=panic"}.do()
	if err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := (mount{dir, root + dir, "", unix.MS_MOVE, ""}).do(); err != nil {
			return err
		}
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// mountSystem mounts what programs expect of a running system.
func mountSystem() error {
	err := mountAll([]mount{
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
		{"mqueue", "/dev/mqueue", "mqueue", safe, ""},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", safe, "nsdelegate"},
		{"securityfs", "/sys/kernel/security", "securityfs", safe, ""},
		{"debugfs", "/sys/kernel/debug", "debugfs", safe, ""},
		{"tracefs", "/sys/kernel/tracing", "tracefs", safe, ""},
		// As systemd does: mounts of one namespace reach the others.
		{"", "/", "", unix.MS_SHARED | unix.MS_REC, ""},
	})
	if err != nil {
		return err
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2",
	} {
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/run/lock", OutDir, PutDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}
