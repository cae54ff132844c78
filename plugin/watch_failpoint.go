//go:build failpoint

package plugin

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Environment variables of a build with the tag failpoint.
const (
	// failpointLog names a file to which each point appends a line: the time in
	// nanoseconds and the point.
	failpointLog = "ZFSTPL_FAILPOINT_LOG"
	// failpointKill names a file with an order. Points are counted while it exists.
	failpointKill = "ZFSTPL_FAILPOINT_KILL"
)

// watch kills the process with SIGKILL at a point that a test chose: before, during or
// after a call to ZFS.
func watch(c *zfs.Client) {
	var passed atomic.Int64
	c.Watch(func(point string) {
		if strings.HasSuffix(point, "program mark") {
			return // it runs at any time: the points after it would have no fixed number
		}
		note(point)
		o, ok := readOrder()
		if !ok {
			passed.Store(0)
		} else if passed.Add(1) == o.point {
			o.carryOut()
		}
	})
}

func note(point string) {
	path := os.Getenv(failpointLog)
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	fmt.Fprintln(file, time.Now().UnixNano(), point)
}

// order says when the process is killed: at a point, counted from 1 since the file
// exists, or some time after it, while the call runs. Its form is
// "<point> <duration> <commands too>", such as "3 12ms true".
type order struct {
	point    int64
	delay    time.Duration
	commands bool
}

func readOrder() (o order, ok bool) {
	text, err := os.ReadFile(os.Getenv(failpointKill))
	if err != nil {
		return o, false
	}
	var delay string
	if _, err := fmt.Sscan(string(text), &o.point, &delay, &o.commands); err != nil {
		return o, false
	}
	o.delay, err = time.ParseDuration(delay)
	return o, err == nil
}

func (o order) carryOut() {
	if o.delay == 0 {
		o.die()
	}
	time.AfterFunc(o.delay, o.die)
}

func (o order) die() {
	if o.commands {
		killChildren()
	}
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {} // the signal may arrive a moment later
}

// killChildren kills the commands that this process runs, as a kill of a whole service
// does.
func killChildren() {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}
