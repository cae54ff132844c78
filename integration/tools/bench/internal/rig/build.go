//go:build linux

package rig

import (
	"debug/buildinfo"
	"os/exec"
	"runtime/debug"
	"strings"
)

// readBuild returns how the containerd in PATH was built.
func readBuild() (*debug.BuildInfo, error) {
	path, err := exec.LookPath("containerd")
	if err != nil {
		return nil, err
	}
	return buildinfo.ReadFile(path)
}

// HasBtrfs reports whether containerd was built with its btrfs snapshotter, which
// needs cgo.
func HasBtrfs() (bool, error) {
	info, err := readBuild()
	if err != nil {
		return false, err
	}
	has := false
	for _, s := range info.Settings {
		switch s.Key {
		case "CGO_ENABLED":
			has = s.Value == "1"
		case "-tags":
			if strings.Contains(s.Value, "no_btrfs") {
				return false, nil
			}
		}
	}
	return has, nil
}

// pluginVersion is the version of a module that containerd was built with.
func pluginVersion(module string) (string, error) {
	info, err := readBuild()
	if err != nil {
		return "", err
	}
	for _, m := range info.Deps {
		if m.Path == module {
			return m.Version, nil
		}
	}
	return "none", nil
}
