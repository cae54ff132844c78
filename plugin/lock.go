package plugin

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// baseLock keeps a second snapshotter away from a base. It lies in the base
// itself, so that every process that can see the base meets it, whatever its
// configuration or mount namespace. The kernel frees it when the process ends.
type baseLock struct{ file *os.File }

const lockName = "lock"

func lockBase(root string, base layout.Base, address string) (*baseLock, error) {
	path := filepath.Join(root, lockName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of %s: %w", base, err)
	}
	l := &baseLock{file}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder := l.holder()
		return nil, errors.Join(fmt.Errorf("dataset %s is in use by %s: stop it first, two daemons on one base would destroy each other's snapshots",
			base, holder), file.Close())
	}
	if err == nil {
		err = l.sign(address)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock of %s: %w", base, err), file.Close())
	}
	return l, nil
}

// sign writes who holds the lock, for the one who meets it.
func (l *baseLock) sign(address string) error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	who := fmt.Sprintf("%s, process %d, serving %s\n", filepath.Base(os.Args[0]), os.Getpid(), address)
	_, err := l.file.WriteAt([]byte(who), 0)
	return err
}

func (l *baseLock) holder() string {
	who, err := io.ReadAll(io.LimitReader(l.file, 1024))
	if text := strings.TrimSpace(string(who)); err == nil && text != "" {
		return text
	}
	return "another process"
}

func (l *baseLock) release() error { return l.file.Close() }
