package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// baseLock prevents a second snapshotter on a base. It is a file in the base itself, so
// every process finds it, whatever its configuration or mount namespace. The kernel
// releases it when the process ends.
type baseLock struct{ file *os.File }

const lockName = "lock"

// orphanTimeout is how long a command of a daemon that was killed may run on.
const orphanTimeout = 30 * time.Second

// lockBase locks a base, given its root directory, and writes this process and its
// purpose, such as "serving <address>", into the lock.
func lockBase(ctx context.Context, root *os.Root, base layout.Base, purpose string) (*baseLock, error) {
	file, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of %s: %w", base, err)
	}
	l := &baseLock{file}
	if err := l.acquire(ctx, root, base, purpose); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	// The owner line is best effort: on a full pool it cannot be written, and a cleanup
	// must be able to lock the base there.
	if err := l.writeOwner(purpose); err != nil {
		log.G(ctx).WithError(err).WithField("dataset", base.String()).Warn("failed to write owner into lock")
	}
	return l, nil
}

// acquire takes the lock. It waits for one whose owner is dead: a command of the owner
// holds the lock until it ends. It returns an *InUseError if the owner lives. An owner that
// only cleans up is stopped instead, unless this process only cleans up too: otherwise a
// daemon, and every container, would wait until a timer's cleanup is complete.
func (l *baseLock) acquire(ctx context.Context, root *os.Root, base layout.Base, purpose string) error {
	deadline := time.After(orphanTimeout)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	asked := false
	for {
		err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		owner, pid := l.readOwner()
		yields := strings.HasSuffix(owner, purposeCleanup) && purpose != purposeCleanup
		if pid == 0 || alive(pid) && !yields {
			return &InUseError{Base: base, Owner: owner, cleaning: purpose == purposeCleanup}
		}
		if yields && !asked {
			asked = true
			if _, err := stopOwner(root, base); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			if alive(pid) {
				return fmt.Errorf("%w, which did not stop within %s after a signal: see 'zpool status'", &InUseError{Base: base, Owner: owner, cleaning: true}, orphanTimeout)
			}
			return fmt.Errorf("dataset %s is locked by a zfs command of %s, which has ended; the command did not end within %s: see 'zpool status'", base, owner, orphanTimeout)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// InUseError is the error for a base that another process has locked.
type InUseError struct {
	Base  layout.Base
	Owner string // the owner line of the lock

	cleaning bool // the caller only wanted to clean up
}

func (e *InUseError) Error() string {
	text := fmt.Sprintf("dataset %s is in use by %s", e.Base, e.Owner)
	if !e.cleaning {
		text += ": stop it first, two daemons on one base would destroy each other's snapshots"
	}
	return text
}

// Address returns the address of the socket that serves the base, or "".
func (e *InUseError) Address() string {
	_, address, _ := strings.Cut(e.Owner, ", "+purposeServing)
	return address
}

// purposeServing is the purpose in the lock of a daemon, before its socket's address.
const purposeServing = "serving "

func alive(pid int) bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// writeOwner writes this process and its purpose into the lock.
func (l *baseLock) writeOwner(purpose string) error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	owner := fmt.Sprintf("%s, process %d, %s\n", filepath.Base(os.Args[0]), os.Getpid(), purpose)
	_, err := l.file.WriteAt([]byte(owner), 0)
	return err
}

// readOwner returns the owner line of the lock and the PID in it, or 0.
func (l *baseLock) readOwner() (owner string, pid int) {
	content, err := io.ReadAll(io.NewSectionReader(l.file, 0, 1024))
	if owner = strings.TrimSpace(string(content)); err != nil || owner == "" {
		return "another process", 0
	}
	if m := ownerPID.FindStringSubmatch(owner); m != nil {
		pid, _ = strconv.Atoi(m[1])
	}
	return owner, pid
}

var ownerPID = regexp.MustCompile(`, process ([0-9]{1,9}), `)
