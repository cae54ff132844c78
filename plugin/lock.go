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

// baseLock keeps a second snapshotter away from a base. It lies in the base
// itself, so that every process that can see the base meets it, whatever its
// configuration or mount namespace. The kernel frees it when the process ends.
type baseLock struct{ file *os.File }

const lockName = "lock"

// lastWords is how long a command of a daemon that was killed may go on.
const orphanTimeout = 30 * time.Second

// lockBase locks a base, by its root directory, and signs with what it is for, such as
// "serving <address>".
func lockBase(ctx context.Context, root *os.Root, base layout.Base, purpose string) (*baseLock, error) {
	file, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of %s: %w", base, err)
	}
	l := &baseLock{file}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = l.waitForOwner(ctx, root, base, purpose)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	// The lock holds without a word in it. On a full pool none can be written, and
	// whoever makes room there must be able to begin.
	if err := l.writeOwner(purpose); err != nil {
		log.G(ctx).WithError(err).WithField("dataset", base.String()).Warn("who has the base could not be written into its lock")
	}
	return l, nil
}

// inherit waits for a lock whose owner is dead: a command that he ran holds it
// until it has ended. A living owner is named in the error, but for one that only
// cleans up: he is asked to stop when a daemon comes, or a timer's cleanup at night
// would keep it, and every container, waiting for as long as there is trash.
func (l *baseLock) waitForOwner(ctx context.Context, root *os.Root, base layout.Base, purpose string) error {
	deadline := time.After(orphanTimeout)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	asked := false
	for {
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
		err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline:
			if alive(pid) {
				return fmt.Errorf("%w, which was asked to stop and does not: see 'zpool status'", &InUseError{Base: base, Owner: owner, cleaning: true})
			}
			return fmt.Errorf("dataset %s: a zfs command of %s, which is dead, does not end: see 'zpool status'", base, owner)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// InUseError says that another process has a base.
type InUseError struct {
	Base  layout.Base
	Owner string // as the lock is signed

	cleaning bool // all that was wanted was to clean up
}

func (e *InUseError) Error() string {
	text := fmt.Sprintf("dataset %s is in use by %s", e.Base, e.Owner)
	if !e.cleaning {
		text += ": stop it first, two daemons on one base would destroy each other's snapshots"
	}
	return text
}

// Address is that of the socket at which the base is served; "" where it is not.
func (e *InUseError) Address() string {
	_, address, _ := strings.Cut(e.Owner, ", "+purposeServing)
	return address
}

// servingAt is how the owner of a lock signs, before his socket's address.
const purposeServing = "serving "

func alive(pid int) bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// sign writes who holds the lock, for the one who meets it.
func (l *baseLock) writeOwner(purpose string) error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	owner := fmt.Sprintf("%s, process %d, %s\n", filepath.Base(os.Args[0]), os.Getpid(), purpose)
	_, err := l.file.WriteAt([]byte(owner), 0)
	return err
}

// holder answers who wrote the lock, and his process or 0.
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

func (l *baseLock) release() error { return l.file.Close() }
