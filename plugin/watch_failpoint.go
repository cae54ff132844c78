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

// Variables of the environment that a build with the tag failpoint reads.
const (
	// failpointLog names a file that gets a line for every point passed: the
	// time in nanoseconds and the point.
	failpointLog = "ZFSTPL_FAILPOINT_LOG"
	// failpointKill names a file with an order, see there. Points are counted
	// while it exists.
	failpointKill = "ZFSTPL_FAILPOINT_KILL"
)

// watch makes the process die by SIGKILL at a point that a test chose: before
// or after a call to ZFS, or in the middle of one.
func watch(c *zfs.Client) {
	var passed atomic.Int64
	c.Watch(func(point string) {
		if strings.HasSuffix(point, "program mark") {
			return // it comes some time later: the points behind it would have no number
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

// order is what a test wants: death at a point, counted from 1 since the order
// is there, or some time behind it, while the call goes on. Its form is
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
	select {} // the signal may come a moment later
}

// killChildren ends the commands that run for us, as whoever kills a whole
// service does.
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
