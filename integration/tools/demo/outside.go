//go:build linux

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// runtimeDirs are where runc, ctr and the shims keep their state, whatever
// directory containerd was given.
var runtimeDirs = []string{"/run/containerd", "/run/containerd/fifo", "/run/containerd/runc", "/run/containerd/s"}

// noteRuntimeDirs finds out which of them this machine does not have yet.
func (t *tour) noteRuntimeDirs() {
	for _, dir := range runtimeDirs {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			t.foreign = append(t.foreign, dir)
		}
	}
}

// removeOutside removes what is left outside the temporary directory: empty
// directories, and after a rescue what killed shims had no time to remove. It
// goes by names that only the tour uses, and needs the temporary directory to
// know the shims' sockets.
func (t *tour) removeOutside() error {
	errs := []error{t.removeCgroups(), t.removeShimSockets(), os.RemoveAll(filepath.Join("/run/containerd/runc", t.name))}
	for i := len(t.foreign) - 1; i >= 0; i-- {
		if err := removeDir(t.foreign[i]); !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, err) // not empty: a containerd has come to use it
		}
	}
	return errors.Join(errs...)
}

var shimSocket = regexp.MustCompile(`unix://(/run/containerd/s/[0-9a-f]{64})\b`)

// removeShimSockets removes the sockets of killed shims. Which they are stands
// in the directories that containerd keeps for running containers.
func (t *tour) removeShimSockets() error {
	files, err := filepath.Glob(t.path("state", "io.containerd.runtime.v2.task", t.name, "*", "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		if base := filepath.Base(file); base != "bootstrap.json" && base != "address" {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
		}
		for _, match := range shimSocket.FindAllSubmatch(content, -1) {
			if err := os.Remove(string(match[1])); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// removeCgroups removes the empty cgroup of containerd's namespace, which runc
// makes as the parent of its containers' and leaves.
func (t *tour) removeCgroups() error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		dirs, err := filepath.Glob(pattern + t.name)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			// Children are there only if a container was killed.
			children, err := filepath.Glob(dir + "/*/cgroup.procs")
			errs = append(errs, err)
			for _, child := range children {
				errs = append(errs, removeDir(filepath.Dir(child)))
			}
			errs = append(errs, removeDir(dir))
		}
	}
	return errors.Join(errs...)
}

func removeDir(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
