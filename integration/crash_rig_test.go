package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/integration/tied"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// crashRig is a base and a daemon on it that dies at a failure point: one that
// was built with the tag failpoint, see plugin/watch_failpoint.go.
type crashRig struct {
	base  *testpool.Base
	d     *harness.Daemon
	conn  *grpc.ClientConn
	sn    harness.Proxy
	log   string // the file with the points that were passed
	order string // the file with the order to die

	// What is kept from one crash to the next, see stage.
	staged bool
	words  map[string][]string
	kept   crashState
	names  []string
}

func newCrashRig(t testing.TB, client zfs.Choice) *crashRig {
	t.Helper()
	base := pool.NewBase(t)
	d := harness.NewDaemon(t, base, "--zfs-client", string(client), "--cache-pressure-percent", "0", // no looks in between
		"--foreign-snapshots", "destroy", "--reuse-layers", "skip")
	d.Cmd.Path = harness.Binary(t, *crashDaemon)
	dir := filepath.Dir(d.Address)
	r := &crashRig{base: base, d: d, log: filepath.Join(dir, "points"), order: filepath.Join(dir, "order")}
	t.Cleanup(func() {
		if r.running() {
			r.hangUp()
			d.Stop(t)
		}
	})
	return r
}

// launch starts the daemon and returns whether it came up. It may have been
// armed at its start.
func (r *crashRig) launch(t testing.TB) bool {
	t.Helper()
	d := r.d
	ready := harness.NotifySocket(t, filepath.Dir(d.Address))
	cmd := exec.Command(d.Cmd.Path, d.Cmd.Args[1:]...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.Path,
		"ZFSTPL_FAILPOINT_LOG="+r.log, "ZFSTPL_FAILPOINT_KILL="+r.order,
		"GORACE=halt_on_error=1") // ends a daemon with the race detector, which is then not killed as ordered
	log, exited := &harness.ProgramLog{}, make(chan struct{})
	cmd.Stdout, cmd.Stderr = log.Output(t), log.Output(t)
	d.Cmd, d.Log, d.Exited = cmd, log, exited
	require.NoError(t, tied.Start(cmd))
	go func() { d.Err = cmd.Wait(); close(exited) }()
	select {
	case <-ready.Got:
	case <-exited:
		return false
	case <-time.After(harness.Patience):
		require.Fail(t, "the daemon is not ready", "%s", log)
	}
	conn, err := grpc.NewClient("unix://"+d.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	r.conn = conn
	r.sn = harness.NewProxy(conn)
	return true
}

// up makes sure that the daemon runs and has no order to die.
func (r *crashRig) up(t testing.TB) {
	t.Helper()
	r.pardon(t)
	if !r.running() {
		require.True(t, r.launch(t), "the daemon ended at its start: %v\n%s", r.d.Err, r.d.Log)
	}
}

func (r *crashRig) running() bool {
	if r.d.Exited == nil {
		return false
	}
	select {
	case <-r.d.Exited:
		return false
	default:
		return true
	}
}

func (r *crashRig) hangUp() {
	if r.conn != nil {
		_ = r.conn.Close() // of an unused connection
		r.conn = nil
	}
}

// stop lets the daemon end by itself. It returns an error when it does not.
func (r *crashRig) stop() error {
	r.hangUp()
	if err := r.d.Cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return r.d.Wait()
}

// kill ends the daemon at once.
func (r *crashRig) kill(t testing.TB) {
	t.Helper()
	r.strikeDown()
	r.requireKilled(t)
}

// strikeDown sends the signal, if the daemon still runs.
func (r *crashRig) strikeDown() {
	if r.running() {
		_ = r.d.Cmd.Process.Kill() // it may have ended just now
	}
}

// requireKilled waits for the daemon to die by the signal that it was promised.
func (r *crashRig) requireKilled(t testing.TB) {
	t.Helper()
	defer r.hangUp()
	var exit *exec.ExitError
	require.ErrorAs(t, r.d.Wait(), &exit, "the daemon is to die\n%s", r.d.Log)
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "%v\n%s", exit, r.d.Log)
}

// crashBlow is how the daemon dies: at a point of its work, counted from 1, or some
// time behind it. The commands it runs may die with it.
type crashBlow struct {
	point    int
	delay    time.Duration
	commands bool
}

func (b crashBlow) String() string { return fmt.Sprint(b.point, " ", b.delay, " ", b.commands) }

// condemn orders the daemon to die. The file comes into being whole.
func (r *crashRig) condemn(t testing.TB, b crashBlow) {
	t.Helper()
	require.NoError(t, os.WriteFile(r.order+".new", []byte(b.String()), 0o600))
	require.NoError(t, os.Rename(r.order+".new", r.order))
}

func (r *crashRig) pardon(t testing.TB) {
	t.Helper()
	if err := os.Remove(r.order); err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}

// crashPoint is one that the daemon passed.
type crashPoint struct {
	what string // such as "before program commit"
	at   time.Time
}

// points are those that the daemons passed since forget.
func (r *crashRig) points(t testing.TB) []crashPoint {
	t.Helper()
	text, err := os.ReadFile(r.log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	require.NoError(t, err)
	var points []crashPoint
	for line := range strings.Lines(string(text)) {
		nanoseconds, what, ok := strings.Cut(strings.TrimSpace(line), " ")
		at, err := strconv.ParseInt(nanoseconds, 10, 64)
		require.True(t, ok && err == nil, "%q", line)
		points = append(points, crashPoint{what, time.Unix(0, at)})
	}
	return points
}

func (r *crashRig) forget(t testing.TB) {
	t.Helper()
	if err := os.Remove(r.log); err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}
