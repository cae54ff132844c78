//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	poolName = "zfstpl-powercut"
	baseName = poolName + "/zfstpl"
	rootDir  = "/run/zfstpl-powercut/root"
)

// openPool makes the pool in the machine's first life and imports it in every
// other, as after any power cut: by force, because no machine has exported it.
func (m *machine) openPool(ctx context.Context) error {
	if err := os.MkdirAll(rootDir, 0o755); err != nil {
		return err
	}
	m.cutter.opening()
	if m.cycle == 0 {
		if _, err := command(ctx, "zpool", "create", "-f", "-o", "cachefile=none", "-O", "mountpoint=none", poolName, m.device); err != nil {
			return err
		}
		_, err := command(ctx, filepath.Join(m.bin, "zfstpl"), "init", "--root", rootDir, baseName)
		return err
	}
	if _, err := command(ctx, "zpool", "import", "-f", "-o", "cachefile=none", "-d", m.device, poolName); err != nil {
		return err
	}
	return scrub(ctx)
}

var scrubbed = regexp.MustCompile(`scan: scrub repaired 0B in \S+ with 0 errors`)

// scrub reads every block of the pool and wants no error of any kind.
func scrub(ctx context.Context) error {
	// A scrub that the last cut interrupted goes on after the import, and is not of the whole pool.
	if _, err := command(ctx, "zpool", "wait", "-t", "scrub", poolName); err != nil {
		return err
	}
	if _, err := command(ctx, "zpool", "scrub", "-w", poolName); err != nil {
		return err
	}
	status, err := command(ctx, "zpool", "status", poolName)
	if err != nil {
		return err
	}
	if !strings.Contains(status, "errors: No known data errors") || !scrubbed.MatchString(status) || !countsNothing(status) {
		return fmt.Errorf("the pool has errors:\n%s", status)
	}
	return nil
}

// countsNothing reports whether the pool and all its disks are online without an
// error of reading, writing or checksums.
func countsNothing(status string) bool {
	counts := 0
	for line := range strings.Lines(status) {
		fields := strings.Fields(line)
		if len(fields) < 5 || fields[1] == "STATE" {
			continue
		}
		if fields[0] == poolName || strings.HasPrefix(line, "\t  ") {
			if strings.Join(fields[1:5], " ") != "ONLINE 0 0 0" {
				return false
			}
			counts++
		}
	}
	return counts >= 2
}

// command runs a program to its end and returns what it wrote.
func command(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}
