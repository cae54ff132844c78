package integration

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/integration/standin"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/integration/tied"
	"github.com/zfstpl/zfstpl/plugin/control"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
)

// patience bounds every wait for an event. The testbed is emulated and slow.
const patience = 2 * time.Minute

// binary is the path of a program of ours, built by the Makefile.
func binary(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("ZFSTPL_BIN")
	require.NotEmpty(t, dir, "ZFSTPL_BIN names the directory of the programs under test; 'make test' sets it")
	return filepath.Join(dir, name)
}

// daemon is a running containerd-zfstpl-grpc.
type daemon struct {
	cmd     *exec.Cmd
	base    *testpool.Base
	address string
	env     []string // more of it than the test's own
	log     *programLog
	exited  chan struct{} // closed when the process has ended
	err     error         // how it ended; read after exited
	standIn func()        // ends what stands in for containerd while none runs
}

// startDaemon starts a daemon on base, waits until it says READY and stops it
// when t ends, asserting that it exits with 0.
func startDaemon(t testing.TB, base *testpool.Base, flags ...string) *daemon {
	t.Helper()
	d := newDaemon(t, base, flags...)
	d.start(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", d.log)
		}
		d.stop(t)
	})
	return d
}

func newDaemon(t testing.TB, base *testpool.Base, flags ...string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "zfstpl-run-") // short: a socket's path has 107 bytes
	require.NoError(t, err)
	d := &daemon{base: base, address: filepath.Join(dir, "zfstpl.sock")}
	t.Cleanup(func() {
		require.NoError(t, testpool.Unmount(d.address))
		require.NoError(t, os.RemoveAll(dir))
	})
	d.standIn, err = standin.Serve(d.containerd())
	require.NoError(t, err)
	t.Cleanup(d.standIn)
	args := append([]string{"--dataset", base.String(), "--root", base.Root, "--address", d.address,
		"--containerd-address", d.containerd(),
		"--log-level", "debug", "--cache-keep", "0s", "--zfs-client", string(base.Choice)}, flags...)
	d.cmd = exec.Command(binary(t, "containerd-zfstpl-grpc"), args...)
	return d
}

// containerd is where the daemon expects containerd's socket.
func (d *daemon) containerd() string {
	return filepath.Join(filepath.Dir(d.address), "containerd.sock")
}

func (d *daemon) start(t testing.TB) {
	t.Helper()
	ready := notifySocket(t, filepath.Dir(d.address))
	d.log = &programLog{}
	cmd := exec.Command(d.cmd.Path, d.cmd.Args[1:]...)
	cmd.Stdout, cmd.Stderr = d.log.output(t), d.log.output(t)
	cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+ready.path), d.env...)
	d.cmd, d.exited = cmd, make(chan struct{})
	require.NoError(t, tied.Start(cmd))
	exited := d.exited
	go func() { d.err = cmd.Wait(); close(exited) }()
	select {
	case <-ready.got:
	case <-d.exited:
		require.Fail(t, "the daemon ended at its start", "%v\n%s", d.err, d.log)
	case <-time.After(patience):
		require.Fail(t, "the daemon is not ready", "%s", d.log)
	}
}

// stop asks the daemon to end. A second stop does nothing.
func (d *daemon) stop(t testing.TB) {
	t.Helper()
	select {
	case <-d.exited:
		return
	default:
	}
	require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, d.wait(), "SIGTERM ends the daemon with 0\n%s", d.log)
}

// kill ends it without warning.
func (d *daemon) kill(t testing.TB) {
	t.Helper()
	require.NoError(t, d.cmd.Process.Kill())
	var exit *exec.ExitError
	require.ErrorAs(t, d.wait(), &exit)
}

func (d *daemon) wait() error {
	select {
	case <-d.exited:
		return d.err
	case <-time.After(patience):
		return errors.New("the daemon does not end")
	}
}

func (d *daemon) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+d.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// snapshotter is the daemon as containerd sees it. Once a containerd runs the daemon
// serves nothing else.
func (d *daemon) snapshotter(t testing.TB) proxied {
	t.Helper()
	client := snapshotsapi.NewSnapshotsClient(d.dial(t))
	return proxied{proxy.NewSnapshotter(client, "zfstpl")}
}

// proxied is a snapshotter over a socket, with the Cleanup that containerd's
// proxy has as well.
type proxied struct{ snapshots.Snapshotter }

func (p proxied) Cleanup(ctx context.Context) error {
	return p.Snapshotter.(snapshots.Cleaner).Cleanup(ctx)
}

// clean has the daemon clean up, as 'zfstpl cleanup' does, which any process may.
func (d *daemon) clean(t testing.TB) {
	t.Helper()
	require.NoError(t, control.Clean(t.Context(), d.dial(t), d.base.String(), nil))
}

// recordNames are the names of all records in the base, as the pool has them.
func (d *daemon) recordNames(t testing.TB) (names []string) {
	t.Helper()
	entries, err := inspect.List(t.Context(), d.base.Client, d.base.Base)
	require.NoError(t, err)
	for _, e := range entries {
		for _, r := range e.Records {
			names = append(names, r.Name)
		}
	}
	return names
}

type readiness struct {
	path string
	got  chan struct{}
}

// notifySocket listens as systemd does for READY=1.
func notifySocket(t testing.TB, dir string) readiness {
	t.Helper()
	r := readiness{path: filepath.Join(dir, "notify"), got: make(chan struct{})}
	if err := os.Remove(r.path); err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // the reader below may have closed it
	go func() {
		defer conn.Close()
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if strings.Contains(string(buf[:n]), "READY=1") {
				close(r.got)
				return
			}
		}
	}()
	return r
}

// programLog is the output of a program, in a file without a name. What the program wrote
// before it did anything else, such as to notify that it is ready, can be read afterwards: no
// goroutine copies it. The zero value is an empty log.
type programLog struct {
	once sync.Once
	file *os.File
	err  error
}

// output returns the file for the program's standard output and error.
func (l *programLog) output(t testing.TB) *os.File {
	t.Helper()
	l.open()
	require.NoError(t, l.err)
	return l.file
}

func (l *programLog) open() {
	l.once.Do(func() {
		fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
		l.file, l.err = os.NewFile(uintptr(max(fd, 0)), "log"), err
	})
}

// String returns what was written until now.
func (l *programLog) String() string {
	l.open()
	if l.err != nil {
		return l.err.Error()
	}
	text, err := io.ReadAll(io.NewSectionReader(l.file, 0, 1<<40))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// touch makes an empty file.
func touch(dir, name string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// runCommand runs a program of ours to its end and returns what it wrote.
func runCommand(t testing.TB, name string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(binary(t, name), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}
