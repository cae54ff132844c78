package machine

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// Scratch is a directory for what one run needs on the host. If the run is
// killed, a later one removes it.
type Scratch struct {
	Dir  string
	lock *os.File
}

// NewScratch makes a directory in parent, and removes there what runs left
// that were killed: a directory is locked for as long as its run lives.
func NewScratch(parent string) (s *Scratch, err error) {
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	// Only one at a time, or a directory would be removed between its making
	// and its locking.
	gate, err := os.Open(parent)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, gate.Close()) }()
	if err := syscall.Flock(int(gate.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	if err := removeStale(parent); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "run-")
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Scratch{Dir: dir, lock: lock}, nil
}

// Close removes the directory.
func (s *Scratch) Close() error {
	return errors.Join(os.RemoveAll(s.Dir), s.lock.Close())
}

func removeStale(parent string) error {
	dirs, err := filepath.Glob(filepath.Join(parent, "run-*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		lock, err := lockDir(dir)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, os.ErrNotExist) {
			continue // it is in use, or was just removed by its run
		}
		if err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(dir), lock.Close()); err != nil {
			return err
		}
	}
	return nil
}

func lockDir(dir string) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}
