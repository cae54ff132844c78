//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/diff"
	diffproxy "github.com/containerd/containerd/v2/core/diff/proxy"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/integration/tied"
	"github.com/zfstpl/zfstpl/plugin/control"
)

const (
	socket    = "/run/zfstpl-powercut/zfstpl.sock"
	notify    = "/run/zfstpl-powercut/notify"
	daemonLog = "/run/zfstpl-powercut/log"
	tailLines = 30
)

// daemon is the running containerd-zfstpl-grpc.
type daemon struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
	err    error         // how; read after exited
}

// startDaemon starts it and waits until it says that it is ready.
func (m *machine) startDaemon(ctx context.Context) error {
	if err := os.Chmod(filepath.Dir(socket), 0o700); err != nil {
		return err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	log, err := os.Create(daemonLog)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	d := &daemon{exited: make(chan struct{})}
	d.cmd = exec.Command(filepath.Join(m.bin, "containerd-zfstpl-grpc"), "--dataset", baseName, "--root", rootDir,
		"--address", socket, "--log-level", "debug", "--cache-keep", m.plan.keep, "--zfs-client", m.plan.client,
		"--cleanup-mode", m.plan.mode, "--reuse-layers", "skip", "--cache-max-bytes", m.plan.cached, "--ready-runtimes", m.plan.ready, "--containerd-address", layersSocket)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	if err := tied.Start(d.cmd); err != nil {
		return err
	}
	m.daemon = d
	go func() { d.err = d.cmd.Wait(); close(d.exited) }()
	return d.ready(ctx, conn)
}

func (d *daemon) ready(ctx context.Context, conn net.Conn) error {
	said := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil || strings.Contains(string(buf[:n]), "READY=1") {
				said <- err
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the daemon is not ready"))
	defer cancel()
	select {
	case err := <-said:
		return err
	case <-d.exited:
		return fmt.Errorf("the daemon ended at its start: %w\n%s", d.err, d.tail())
	case <-ctx.Done():
		return fmt.Errorf("%w\n%s", context.Cause(ctx), d.tail())
	}
}

// stop asks it to end and wants it to do so with 0.
func (d *daemon) stop(ctx context.Context) error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the daemon does not end"))
	defer cancel()
	select {
	case <-d.exited:
		return d.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tail is the end of what it wrote.
func (d *daemon) tail() string {
	text, err := os.ReadFile(daemonLog)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// dial returns the daemon as containerd sees it, noting every request.
func (m *machine) dial() (*client, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	sn := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "zfstpl")
	clean := sn.(snapshots.Cleaner).Cleanup
	if m.plan.mode != "gc" {
		clean = func(ctx context.Context) error { return control.Clean(ctx, conn, "", nil) }
	}
	applier := diffproxy.NewDiffApplier(diffapi.NewDiffClient(conn)).(diff.Applier)
	return &client{sn: sn, applier: applier, clean: clean, notes: m.notes, cutter: m.cutter}, nil
}
