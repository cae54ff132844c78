package crash

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Rig is a base and a daemon on it that can be killed at a point of its work. The program of
// the daemon is built with the tag failpoint, see plugin/watch_failpoint.go.
type Rig struct {
	base   *testpool.Base
	client zfs.Choice
	d      *harness.Daemon
	conn   *grpc.ClientConn
	sn     harness.Proxy
	log    string // the file with the points that were passed
	order  string // the file with the order to kill
	// isOrdered reports whether the daemon is to be killed.
	isOrdered bool
	shared    *shared // what the crashes of a case share, nil if it does not exist
}

// NewRig returns a rig on base with a daemon of a program that is not started.
func NewRig(t testing.TB, base *testpool.Base, client zfs.Choice, program string) *Rig {
	t.Helper()
	d := harness.NewDaemon(t, base, "--zfs-client", string(client), "--cache-pressure-percent", "0", // no evictions
		"--foreign-snapshots", "destroy", "--reuse-layers", "skip")
	d.Cmd.Path = harness.Binary(t, program)
	dir := filepath.Dir(d.Address)
	r := &Rig{base: base, client: client, d: d, log: filepath.Join(dir, "points"), order: filepath.Join(dir, "order")}
	// A daemon with the race detector ends at a race. It is then not killed as ordered.
	d.Env = []string{"ZFSTPL_FAILPOINT_LOG=" + r.log, "ZFSTPL_FAILPOINT_KILL=" + r.order, "GORACE=halt_on_error=1"}
	t.Cleanup(func() {
		if d.IsRunning() {
			r.disconnect()
			d.Stop(t)
		}
	})
	return r
}

// Rigs are the rigs on which cases run side by side, one for each processor.
type Rigs struct {
	open func(testing.TB) *Rig
	free chan *Rig // nil for a rig that a test failed on
}

// NewRigs returns rigs that open opens.
func NewRigs(t testing.TB, open func(testing.TB) *Rig) *Rigs {
	t.Helper()
	r := &Rigs{open: open, free: make(chan *Rig, runtime.GOMAXPROCS(0))}
	for range cap(r.free) {
		r.free <- open(t)
	}
	return r
}

// launch starts the daemon and reports whether it is ready. The daemon may be killed before.
func (r *Rig) launch(t testing.TB) bool {
	t.Helper()
	if !r.d.Launch(t) {
		return false
	}
	conn, err := grpc.NewClient("unix://"+r.d.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	r.conn, r.sn = conn, harness.NewProxy(conn)
	return true
}

// ensureRunning starts the daemon if it does not run. It cancels the order to kill it.
func (r *Rig) ensureRunning(t testing.TB) {
	t.Helper()
	r.cancelOrder(t)
	if !r.d.IsRunning() {
		require.True(t, r.launch(t), "the daemon ended at its start: %v\n%s", r.d.Err, r.d.Log)
	}
}

func (r *Rig) disconnect() {
	if r.conn != nil {
		_ = r.conn.Close() // of an unused connection
		r.conn = nil
	}
}

// stop asks the daemon to end and waits for that.
func (r *Rig) stop() error {
	r.disconnect()
	if err := r.d.Cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return r.d.Wait()
}

// kill kills the daemon if it still runs.
func (r *Rig) kill() {
	if r.d.IsRunning() {
		_ = r.d.Cmd.Process.Kill() // it may have ended just now
	}
}

// requireKilled waits until the daemon has ended and asserts that SIGKILL ended it.
func (r *Rig) requireKilled(t testing.TB) {
	t.Helper()
	defer r.disconnect()
	var exit *exec.ExitError
	require.ErrorAs(t, r.d.Wait(), &exit, "the daemon is to be killed\n%s", r.d.Log)
	require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "%v\n%s", exit, r.d.Log)
}
