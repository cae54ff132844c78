package harness

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/integration/standin"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/integration/tied"
	"github.com/zfstpl/zfstpl/plugin/control"
)

// Patience limits every wait for an event. The testbed is emulated and slow.
const Patience = 2 * time.Minute

// Binary returns the path of a program under test, which the Makefile builds.
func Binary(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("ZFSTPL_BIN")
	require.NotEmpty(t, dir, "ZFSTPL_BIN names the directory of the programs under test; 'make test' sets it")
	return filepath.Join(dir, name)
}

// Daemon is a containerd-zfstpl-grpc. It can be started again after it has ended.
type Daemon struct {
	Cmd     *exec.Cmd
	Base    *testpool.Base
	Address string
	Env     []string // in addition to the test's own
	Log     *ProgramLog
	Exited  chan struct{} // closed when the process has ended
	Err     error         // of the process; read it after Exited is closed
	// EndStandIn ends the server that replies to the daemon while no containerd runs.
	EndStandIn func()
}

// StartDaemon starts a daemon on base and waits until it is ready. When t ends, StartDaemon
// stops the daemon and asserts that it exits with 0.
func StartDaemon(t testing.TB, base *testpool.Base, flags ...string) *Daemon {
	t.Helper()
	d := NewDaemon(t, base, flags...)
	d.Start(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", d.Log)
		}
		d.Stop(t)
	})
	return d
}

// NewDaemon returns a daemon on base that is not started.
func NewDaemon(t testing.TB, base *testpool.Base, flags ...string) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "zfstpl-run-") // short: a socket's path has 107 bytes
	require.NoError(t, err)
	d := &Daemon{Base: base, Address: filepath.Join(dir, "zfstpl.sock")}
	t.Cleanup(func() {
		require.NoError(t, testpool.Unmount(d.Address))
		require.NoError(t, os.RemoveAll(dir))
	})
	d.EndStandIn, err = standin.Serve(d.Containerd())
	require.NoError(t, err)
	t.Cleanup(d.EndStandIn)
	if n := os.Getenv(testpool.ReadyVariable); n != "" {
		flags = append([]string{"--ready-runtimes", n}, flags...)
	}
	args := append([]string{"--dataset", base.String(), "--root", base.Root, "--address", d.Address,
		"--containerd-address", d.Containerd(),
		"--log-level", "debug", "--cache-keep", "0s", "--zfs-client", string(base.Choice)}, flags...)
	d.Cmd = exec.Command(Binary(t, "containerd-zfstpl-grpc"), args...)
	return d
}

// Containerd returns the address at which the daemon expects containerd.
func (d *Daemon) Containerd() string {
	return filepath.Join(filepath.Dir(d.Address), "containerd.sock")
}

// Start starts the daemon and waits until it is ready.
func (d *Daemon) Start(t testing.TB) {
	t.Helper()
	require.True(t, d.Launch(t), "the daemon ended at its start: %v\n%s", d.Err, d.Log)
}

// Launch starts the daemon and waits until it is ready or has ended. It reports whether the
// daemon is ready.
func (d *Daemon) Launch(t testing.TB) bool {
	t.Helper()
	ready := NotifySocket(t, filepath.Dir(d.Address))
	d.Log = &ProgramLog{}
	cmd := exec.Command(d.Cmd.Path, d.Cmd.Args[1:]...)
	cmd.Stdout, cmd.Stderr = d.Log.Output(t), d.Log.Output(t)
	cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+ready.Path), d.Env...)
	d.Cmd, d.Exited = cmd, make(chan struct{})
	require.NoError(t, tied.Start(cmd))
	exited := d.Exited
	go func() { d.Err = cmd.Wait(); close(exited) }()
	select {
	case <-ready.Got:
		return true
	case <-d.Exited:
	case <-time.After(Patience):
		require.Fail(t, "the daemon is not ready", "%s", d.Log)
	}
	return false
}

// IsRunning reports whether the daemon was started and has not ended.
func (d *Daemon) IsRunning() bool {
	if d.Exited == nil {
		return false
	}
	select {
	case <-d.Exited:
		return false
	default:
		return true
	}
}

// Stop asks the daemon to end and waits for that. A second Stop does nothing.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	if !d.IsRunning() {
		return
	}
	require.NoError(t, d.Cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, d.Wait(), "SIGTERM ends the daemon with 0\n%s", d.Log)
}

// Kill kills the daemon.
func (d *Daemon) Kill(t testing.TB) {
	t.Helper()
	require.NoError(t, d.Cmd.Process.Kill())
	var exit *exec.ExitError
	require.ErrorAs(t, d.Wait(), &exit)
}

// Wait waits until the daemon has ended and returns its error.
func (d *Daemon) Wait() error {
	select {
	case <-d.Exited:
		return d.Err
	case <-time.After(Patience):
		return errors.New("the daemon does not end")
	}
}

// Dial returns a connection to the daemon, which is closed when t ends.
func (d *Daemon) Dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+d.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// Snapshotter returns the daemon's snapshotter as containerd sees it. While a containerd runs,
// the daemon serves no other process.
func (d *Daemon) Snapshotter(t testing.TB) Proxy {
	t.Helper()
	return NewProxy(d.Dial(t))
}

// Clean requests a cleanup from the daemon, as 'zfstpl cleanup' does. Every process may do so.
func (d *Daemon) Clean(t testing.TB) {
	t.Helper()
	require.NoError(t, control.Clean(t.Context(), d.Dial(t), d.Base.String(), nil))
}

// RecordNames returns the names of all records that the pool has in the base.
func (d *Daemon) RecordNames(t testing.TB) (names []string) {
	t.Helper()
	for _, e := range d.Base.Inspect(t) {
		for _, r := range e.Records {
			names = append(names, r.Name)
		}
	}
	return names
}

// RunCommand runs a program under test to its end and returns its output.
func RunCommand(t testing.TB, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(Binary(t, name), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}
