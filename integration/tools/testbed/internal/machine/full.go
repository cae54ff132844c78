package machine

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// nearlyFull is less than QEMU may need for its next write.
const nearlyFull = 4 << 20

// sayIfFull reports host file systems without space: the guest sees only that
// its disk has errors, and a pool on it waits for ever.
func (s *session) sayIfFull() {
	dirs := map[string]bool{s.config.Scratch: true}
	if s.config.Out != "" {
		dirs[s.config.Out] = true
	}
	for _, disk := range s.config.Disks {
		dirs[filepath.Dir(disk.Path)] = true
	}
	for dir := range dirs {
		var stat unix.Statfs_t
		if unix.Statfs(dir, &stat) == nil && stat.Bavail*uint64(stat.Bsize) < nearlyFull {
			s.config.Say("the host's file system with %s is full", dir)
		}
	}
}
