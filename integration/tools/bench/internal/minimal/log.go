//go:build linux

package minimal

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Log is a file that records are appended to. Concurrent callers share one fdatasync.
type Log struct {
	file      *os.File
	fdatasync func() error // of the file

	mu   sync.Mutex
	done *sync.Cond // a synchronisation has ended
	// appended counts the records in the file, synced those that a synchronisation covers.
	appended, synced int64
	syncing          bool
	failed           error // of the first synchronisation that failed
}

// OpenLog opens or makes the file.
func OpenLog(path string) (*Log, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return newLog(file, func() error { return unix.Fdatasync(int(file.Fd())) }), nil
}

func newLog(file *os.File, fdatasync func() error) *Log {
	l := &Log{file: file, fdatasync: fdatasync}
	l.done = sync.NewCond(&l.mu)
	return l
}

// Append appends a record and returns after it is on disk.
func (l *Log) Append(record []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(record); err != nil {
		return err
	}
	l.appended++
	for mine := l.appended; l.synced < mine && l.failed == nil; {
		if l.syncing {
			l.done.Wait()
			continue
		}
		l.synchronise()
	}
	return l.failed
}

// synchronise covers every record that is in the file when it begins. Others are appended
// meanwhile. The caller holds the mutex.
func (l *Log) synchronise() {
	covered := l.appended
	l.syncing = true
	l.mu.Unlock()
	err := l.fdatasync()
	l.mu.Lock()
	l.syncing = false
	if err == nil {
		l.synced = covered
	}
	l.failed = errors.Join(l.failed, err)
	l.done.Broadcast()
}

// Close closes the file.
func (l *Log) Close() error { return l.file.Close() }
