//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// snapshotter is the name under which containerd knows zfstpl.
const snapshotter = "zfstpl"

func (t *tour) dataset() string { return t.name + "/zfstpl" }
func (t *tour) root() string    { return t.path("zfstpl") }
func (t *tour) socket() string  { return t.path("zfstpl.sock") }

func (t *tour) showVersions(ctx context.Context) error {
	if t.narrator.dir != "" {
		t.line("    $ D=%s", t.tmp)
	}
	if !t.rehearse {
		if _, err := t.do(ctx, "zfs", "version"); err != nil {
			return err
		}
	}
	if _, err := t.do(ctx, "runc", "--version"); err != nil {
		return err
	}
	out, err := t.do(ctx, "containerd", "--version")
	if err != nil {
		return err
	}
	t.config, err = configVersion(out)
	return err
}

// makePool makes a pool that no cache file remembers and that mounts nothing
// outside the temporary directory.
func (t *tour) makePool(ctx context.Context) error {
	device := t.device
	if device == "" {
		t.say("a sparse file is its only disk: the rest of this machine is left alone")
		device = t.path("disk")
		if _, err := t.do(ctx, "truncate", "-s", "16G", device); err != nil {
			return err
		}
	}
	t.pooled = true
	if _, err := t.do(ctx, "zpool", "create", "-o", "cachefile=none", "-O", "mountpoint=none", t.name, device); err != nil {
		return err
	}
	_, err := t.do(ctx, "zpool", "list", t.name)
	return err
}

func (t *tour) initialize(ctx context.Context) error {
	t.say("it ends with what containerd has to be told, which we come to")
	args := []string{"zfstpl", "init", "--root", t.root(), "--address", t.socket()}
	_, err := t.do(ctx, append(append(args, t.configFlags()...), t.dataset())...)
	return err
}

func (t *tour) startDaemon(ctx context.Context) error {
	var err error
	t.daemon, err = t.start(ctx, "daemon", "containerd-zfstpl-grpc",
		"--dataset", t.dataset(), "--root", t.root(), "--address", t.socket(),
		"--containerd-address", t.containerdSocket(), "--log-level", "info")
	if err != nil {
		return err
	}
	if err := checkHealth(ctx, t.socket()); err != nil {
		return err
	}
	t.say("it has told us that it is ready, and serves gRPC's health check")
	t.empty, err = t.datasets(ctx)
	return err
}

// datasets lists the names of what is below the base, snapshots included.
func (t *tour) datasets(ctx context.Context) ([]string, error) {
	out, err := t.ask(ctx, "zfs", "list", "-H", "-r", "-t", "filesystem,snapshot", "-o", "name", t.dataset())
	if err != nil {
		return nil, err
	}
	names := strings.Fields(out)
	slices.Sort(names)
	return names, nil
}

func (t *tour) showTree(ctx context.Context) error {
	_, err := t.do(ctx, "zfstpl", "ls", "--dataset", t.dataset())
	return err
}

// waitEmpty waits until the pool holds what it held before the first image.
func (t *tour) waitEmpty(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		names, err := t.datasets(ctx)
		if err != nil {
			return err
		}
		if slices.Equal(names, t.empty) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("still on the pool: %s", strings.Join(without(names, t.empty), " "))
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// without is what names holds beyond known.
func without(names, known []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(known, name) })
}

// destroyPool destroys the pool this tour has made and no other.
func (t *tour) destroyPool(ctx context.Context) error {
	if !t.pooled {
		return nil
	}
	if _, err := t.do(ctx, "zpool", "destroy", t.name); err != nil {
		return err
	}
	t.pooled = false
	return nil
}

// poolExists reports whether the pool is imported.
func (t *tour) poolExists(ctx context.Context) (bool, error) {
	out, err := t.ask(ctx, "zpool", "list", "-H", "-o", "name")
	return slices.Contains(strings.Fields(out), t.name), err
}
