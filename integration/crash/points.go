package crash

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// kill says when the daemon is killed: at a point of its work, counted from 1, or some time
// after it. The commands that the daemon runs may be killed with it. Point 0 is after the
// operation.
type kill struct {
	point    int
	delay    time.Duration
	commands bool
}

func (k kill) String() string { return fmt.Sprint(k.point, " ", k.delay, " ", k.commands) }

// orderKill writes the file that orders the daemon to be killed, atomically.
func (r *Rig) orderKill(t testing.TB, k kill) {
	t.Helper()
	require.NoError(t, os.WriteFile(r.order+".new", []byte(k.String()), 0o600))
	require.NoError(t, os.Rename(r.order+".new", r.order))
	r.isOrdered = true
}

func (r *Rig) cancelOrder(t testing.TB) {
	t.Helper()
	if err := os.Remove(r.order); err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	r.isOrdered = false
}

// point is a point of the daemon's work that it passed.
type point struct {
	what string // such as "before program commit"
	at   time.Time
}

// change returns the call that p is before, if the call can change the pool.
func (p point) change() (call string, ok bool) {
	call, ok = strings.CutPrefix(p.what, "before ")
	return call, ok && (strings.HasPrefix(call, "program ") || call == "clone" || call == "mount")
}

// points returns the points that the daemons passed since clearPoints.
func (r *Rig) points(t testing.TB) []point {
	t.Helper()
	text, err := os.ReadFile(r.log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	var points []point
	for line := range strings.Lines(string(text)) {
		nanoseconds, what, ok := strings.Cut(strings.TrimSpace(line), " ")
		at, err := strconv.ParseInt(nanoseconds, 10, 64)
		require.True(t, ok && err == nil, "%q", line)
		points = append(points, point{what, time.Unix(0, at)})
	}
	return points
}

func (r *Rig) clearPoints(t testing.TB) {
	t.Helper()
	if err := os.Remove(r.log); err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}

// groupByState groups the numbers of points, from 1, by the state of the pool at them: each
// call that can change the pool begins a new group.
func groupByState(points []point) (groups [][]int) {
	isNew := true
	for i, p := range points {
		if isNew {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], i+1)
		_, isNew = p.change()
	}
	return groups
}
