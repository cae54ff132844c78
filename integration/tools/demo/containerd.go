//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// disabled are the plugins the tour does without: they take time to start, or
// touch directories of the machine that are not the tour's.
var disabled = []string{
	"io.containerd.cri.v1.images",
	"io.containerd.cri.v1.runtime",
	"io.containerd.grpc.v1.cri",
	"io.containerd.internal.v1.opt",
	"io.containerd.internal.v1.restart",
	"io.containerd.monitor.container.v1.restart",
	"io.containerd.nri.v1.nri",
	"io.containerd.podsandbox.controller.v1.podsandbox",
	"io.containerd.snapshotter.v1.aufs",
	"io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.erofs",
	"io.containerd.snapshotter.v1.zfs",
}

func (t *tour) containerdSocket() string { return t.path("containerd.sock") }

// snapshotterName is overlayfs in a rehearsal.
func (t *tour) snapshotterName() string {
	if t.rehearse {
		return "overlayfs"
	}
	return snapshotter
}

func (t *tour) startContainerd(ctx context.Context) error {
	var fragment string
	var err error
	if !t.rehearse {
		args := []string{"zfstpl", "config", "containerd", "--dataset", t.dataset(), "--root", t.root(), "--address", t.socket()}
		args = append(args, t.configFlags()...)
		t.command(args...)
		t.say("which prints the lines we have seen")
		if fragment, err = t.ask(ctx, args...); err != nil {
			return err
		}
	}
	path := t.path("containerd.toml")
	if err := os.WriteFile(path, []byte(configuration(t.config, fragment)), 0o600); err != nil {
		return err
	}
	t.containerd, err = t.start(ctx, "containerd", "containerd", "--config", path,
		"--root", t.path("containerd"), "--state", t.path("state"), "--address", t.containerdSocket(),
		"--log-level", "warn")
	if err != nil {
		return err
	}
	if err := t.setCtrVariables(); err != nil {
		return err
	}
	_, err = t.do(ctx, "ctr", "plugins", "ls", "id=="+t.snapshotterName())
	return err
}

// configVersion tells from "containerd github.com/… v2.4.2 …" which version of
// the configuration file it reads.
func configVersion(version string) (int, error) {
	match := regexp.MustCompile(`\bv?(\d+)\.(\d+)\.\d+`).FindStringSubmatch(version)
	if match == nil {
		return 0, fmt.Errorf("no version in %q", strings.TrimSpace(version))
	}
	if match[1] == "1" {
		return 2, nil
	}
	return 3, nil
}

// configFlags ask for the version of the configuration where it is not the
// usual one.
func (t *tour) configFlags() []string {
	if t.config == 3 {
		return nil
	}
	return []string{"--config-version", strconv.Itoa(t.config)}
}

// configuration is a whole configuration file around what zfstpl has to say.
func configuration(version int, fragment string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version = %d\ndisabled_plugins = [\n", version)
	for _, id := range disabled {
		fmt.Fprintf(&b, "  %q,\n", id)
	}
	b.WriteString("]\n\n")
	b.WriteString(fragment)
	return b.String()
}

// setCtrVariables tells every ctr that follows where containerd is.
func (t *tour) setCtrVariables() error {
	return errors.Join(
		t.variable("CONTAINERD_ADDRESS", t.containerdSocket()),
		t.variable("CONTAINERD_NAMESPACE", t.name),
		t.variable("CONTAINERD_SNAPSHOTTER", t.snapshotterName()),
		// What the machine's kernel or runc should no longer be is not the topic.
		os.Setenv("CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS", "1"))
}
