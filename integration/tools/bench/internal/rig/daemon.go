//go:build linux

package rig

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/integration/standin"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/contender"
)

// Daemon is a zfstpl with a base of its own.
type Daemon struct {
	*Service
	rig  *Rig
	name string
	bin  string // directory of the programs, or "" for PATH
}

// Base makes a base for a daemon.
func (r *Rig) Base(ctx context.Context, name string) (*Daemon, error) { return r.BaseOf(ctx, name, "") }

// BaseOf makes a base for the daemon whose programs are in a directory, or in PATH if it
// is "".
func (r *Rig) BaseOf(ctx context.Context, name, bin string) (*Daemon, error) {
	d := &Daemon{rig: r, name: name, bin: bin}
	if err := os.Mkdir(filepath.Dir(d.socket()), 0o700); err != nil {
		return nil, err
	}
	_, err := Run(ctx, filepath.Join(bin, "zfstpl"), "init", "--config", "/dev/null", "--root", r.Path(name), d.Dataset())
	r.onClose(func() error {
		if d.Service == nil {
			return nil
		}
		return d.Stop()
	})
	return d, err
}

// Dataset is the name of the base.
func (d *Daemon) Dataset() string { return d.rig.Dataset(d.name) }

// socket is in a directory of the daemon's own, as on a host: the directory of held
// mounts is next to it.
func (d *Daemon) socket() string { return d.rig.Path(d.name+".run", "zfstpl.sock") }

// Start starts the daemon with a ZFS client, native or command, and further
// flags.
func (d *Daemon) Start(ctx context.Context, client string, flags ...string) (err error) {
	args := append([]string{filepath.Join(d.bin, "containerd-zfstpl-grpc"), "--config", "/dev/null",
		"--dataset", d.Dataset(), "--address", d.socket(),
		"--containerd-address", d.rig.containerdSocket(d.name), "--zfs-client", client, "--log-level", "warn"}, flags...)
	d.Service, err = d.rig.start(ctx, d.name, args...)
	return err
}

// Dial returns a connection to the daemon, until the rig is closed.
func (d *Daemon) Dial() (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("unix://"+d.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		d.rig.onClose(conn.Close)
	}
	return conn, err
}

// Snapshotter is the daemon as containerd sees it. No containerd may use the daemon
// beside it.
func (d *Daemon) Snapshotter() (snapshots.Snapshotter, error) {
	stop, err := standin.Serve(d.rig.containerdSocket(d.name))
	if err != nil {
		return nil, err
	}
	d.rig.onClose(func() error { stop(); return nil })
	conn, err := d.Dial()
	if err != nil {
		return nil, err
	}
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), d.name), nil
}

// Count counts the daemon's datasets.
func (d *Daemon) Count(ctx context.Context) (int, error) {
	return contender.CountDatasets(ctx, d.rig.ZFS, d.rig.Name, d.Dataset()+"/runtime", d.Dataset()+"/storage")
}

// Restart starts the daemon anew; Took is then how long that took.
func (d *Daemon) Restart(ctx context.Context, client string) error {
	return errors.Join(d.Stop(), d.Start(ctx, client))
}
