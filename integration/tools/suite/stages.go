package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/zfstpl/zfstpl/integration/testpool"
)

// A step is one check: a command whose exit status counts, or a run of tests
// whose every test does.
type step struct {
	name string
	args []string
	env  []string
	// tests: args is a command that writes what 'go test -json' writes.
	// verbose: args writes what a test binary with -test.v writes.
	tests, verbose bool
	// cannot says why the step cannot run here; it is then counted, not run.
	cannot string
}

// A lane is steps that run one after the other. A stage is lanes that run side by side.
type (
	lane  []step
	stage []lane
)

// stages are all that is to be run, in order.
func stages(opts options) []stage {
	all := []stage{
		{{{name: "vet", args: []string{"go", "vet", "./..."}}},
			{{name: "vet for freebsd", env: []string{"GOOS=freebsd", "GOARCH=amd64", "CGO_ENABLED=0"},
				args: []string{"go", "vet", "./snapshotter/...", "./plugin/...", "./cmd/..."}}}},
		{{{name: "lint", args: []string{opts.lint, "run", "--allow-serial-runners", "./..."}}}},
		{{{name: "unit", tests: true, args: unitArgs(opts)}}},
		machineStage(opts),
	}
	var chosen []stage
	for _, s := range all {
		if s = s.only(opts.only); len(s) > 0 {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// only returns the lanes of the steps whose name has a text.
func (s stage) only(text string) (chosen stage) {
	for _, all := range s {
		var steps lane
		for _, s := range all {
			if strings.Contains(s.name, text) {
				steps = append(steps, s)
			}
		}
		if len(steps) > 0 {
			chosen = append(chosen, steps)
		}
	}
	return chosen
}

func unitArgs(opts options) []string {
	args := []string{"go", "test", "-race", "-json"}
	if opts.run != "" {
		args = append(args, "-run", opts.run)
	}
	return append(args, "./snapshotter/...", "./plugin/...", "./cmd/...",
		"./integration/tools/...", "./integration/model/...", "./integration/powercut/ledger/...", "./integration/powercut/tree/...",
		"./integration/registry/...", "./integration/tied/...", "./integration/waits/...")
}

// machineStage has a lane for each release of ZFS, each with another containerd. A machine
// has a part of the processors: where one lane has less to do than the other, its next
// step does not wait for that.
func machineStage(opts options) stage {
	newer := lane{guestStep(opts, "integration, ZFS 2.4, containerd 2.4", "2.4", "2.4"), powercutStep(opts, "2.4")}
	older := lane{guestStep(opts, "integration, ZFS 2.3, containerd 1.7", "2.3", "1.7"), powercutStep(opts, "2.3")}
	if os.Getenv("ZFSTPL_TEST_HOST") == "1" {
		newer, older = hostSteps(opts), nil
	}
	if opts.long {
		newer = append(newer, critestStep(opts, "2.4", "2.4"), nativeStep(opts, "2.4"), raceStep(opts, "2.4", "2.4", "native"))
		older = append(older, critestStep(opts, "2.3", "1.7"), nativeStep(opts, "2.3"), raceStep(opts, "2.3", "1.7", "command"))
	}
	return stage{newer, older}
}

func hostSteps(opts options) lane {
	s := step{name: "integration, this host's ZFS", verbose: true, args: testArgs(opts, filepath.Join(opts.bin, "integration.test"))}
	s.env = []string{"ZFSTPL_BIN=" + absolute(opts.bin)}
	if err := testpool.Available(); err != nil {
		s.cannot = err.Error()
	}
	return lane{s, {name: "integration, other releases of ZFS", cannot: "ZFSTPL_TEST_HOST=1 tests the release that is here"},
		{name: "power cuts", cannot: "ZFSTPL_TEST_HOST=1 uses this host, whose power is not ours to cut"}}
}

// guestStep boots a machine of its own. The two share the processors: more of
// them than the host has would spin for locks whose holders do not run.
func guestStep(opts options, name, zfs, containerd string) step {
	args := testArgs(opts, guestTests)
	if opts.long {
		args = append(args, "-test.skip="+critest)
	} else {
		args = append(args, "-matrix")
	}
	return step{name: name, verbose: true, args: inGuest(opts, zfs, containerd, limit(opts), args)}
}

const (
	guestTests = "/put/bin/integration.test"
	// critest runs all specs of Kubernetes's own tests, on two snapshotters. It takes as
	// long as all the other tests.
	critest = "^TestCritest$"
)

func critestStep(opts options, zfs, containerd string) step {
	const limit = 3 * time.Hour
	args := []string{guestTests, "-test.v=test2json", "-test.timeout=" + limit.String(), "-test.run=" + critest}
	return step{name: "critest, ZFS " + zfs + ", containerd " + containerd, verbose: true, args: inGuest(opts, zfs, containerd, limit, args)}
}

// raceStep runs the short crash tests, all operations with one client, with a daemon that
// has the race detector.
func raceStep(opts options, zfs, containerd, client string) step {
	const limit = time.Hour
	args := []string{"env", testpool.ClientVariable + "=" + client, guestTests, "-test.v=test2json", "-test.timeout=" + limit.String(),
		"-test.short", "-test.run=^TestCrash$", "-crash.daemon=containerd-zfstpl-grpc-failpoint-race"}
	return step{name: "crashes with the race detector, ZFS " + zfs + ", client " + client, verbose: true, args: inGuest(opts, zfs, containerd, limit, args)}
}

// inGuest returns the command that boots a machine and runs a program of the tests in it.
func inGuest(opts options, zfs, containerd string, limit time.Duration, program []string) []string {
	const boot = 5 * time.Minute
	args := []string{filepath.Join(opts.bin, "testbed"), "run", "--zfs", zfs, "--containerd", containerd,
		"--memory", "4G", "--cores", strconv.Itoa(max(1, runtime.NumCPU()/2)), "--timeout", (limit + boot).String(),
		"--put", opts.bin + ":/put/bin", "--env", "ZFSTPL_BIN=/put/bin"}
	if ready, set := os.LookupEnv(testpool.ReadyVariable); set {
		args = append(args, "--env", testpool.ReadyVariable+"="+ready)
	}
	return append(append(args, "--"), program...)
}

// powercutStep kills machines in the middle of a load and looks at what is left.
func powercutStep(opts options, zfs string) step {
	cuts, requests := "3", "60"
	if opts.long {
		cuts, requests = "25", "200"
	}
	args := []string{filepath.Join(opts.bin, "powercut.test"), "-test.v=test2json", "-test.timeout=60m",
		"-zfs", zfs, "-cuts", cuts, "-requests", requests, "-bin", opts.bin, "-out", opts.out}
	if opts.run != "" {
		args = append(args, "-test.run="+opts.run)
	}
	return step{name: "power cuts, ZFS " + zfs, verbose: true, args: args}
}

// nativeStep runs the tests of package ioctl, which want a disk for the pools
// they fill, suspend and kill programs on.
func nativeStep(opts options, zfs string) step {
	const script = `mkdir -p /pools && mke2fs -qF /dev/testbed/disk0 && mount /dev/testbed/disk0 /pools &&
exec env ZFSTPL_POOL_DIR=/pools /put/bin/ioctl.test -test.v=test2json -test.timeout=25m`
	return step{name: "native calls, ZFS " + zfs, verbose: true, args: []string{
		filepath.Join(opts.bin, "testbed"), "run", "--zfs", zfs, "--memory", "3G", "--disk", "4G", "--timeout", "30m",
		"--put", opts.bin + ":/put/bin", "--", "sh", "-c", script}}
}

func testArgs(opts options, program string) []string {
	args := []string{program, "-test.v=test2json", "-test.timeout=" + limit(opts).String(), "-test.parallel=8"}
	if opts.run != "" {
		args = append(args, "-test.run="+opts.run)
	}
	if opts.long {
		return append(args, "-diff.rounds=1000")
	}
	return append(args, "-test.short")
}

// limit is how long the integration tests may take where machines are emulated.
func limit(opts options) time.Duration {
	if opts.long {
		return 95 * time.Minute
	}
	return 65 * time.Minute
}

func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}
