//go:build linux

package rig

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

// Facts are what one has to know about where it was measured.
func (r *Rig) Facts(ctx context.Context) ([]result.Fact, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, err
	}
	containerd, err := Run(ctx, "containerd", "--version")
	if err != nil {
		return nil, err
	}
	zfstpl, err := Run(ctx, "containerd-zfstpl-grpc", "--version")
	if err != nil {
		return nil, err
	}
	runc, err := Run(ctx, "runc", "--version")
	if err != nil {
		return nil, err
	}
	release, err := os.ReadFile("/sys/module/zfs/version")
	if err != nil {
		return nil, err
	}
	plugin, err := pluginVersion("github.com/containerd/zfs/v2")
	if err != nil {
		return nil, err
	}
	return []result.Fact{
		{Key: "goos", Value: runtime.GOOS},
		{Key: "goarch", Value: runtime.GOARCH},
		{Key: "pkg", Value: "github.com/zfstpl/zfstpl/integration/tools/bench"},
		{Key: "cpu", Value: processor()},
		{Key: "cores", Value: fmt.Sprint(runtime.NumCPU())},
		{Key: "memory", Value: memoryOfMachine()},
		{Key: "machine", Value: machine()},
		{Key: "kernel", Value: unix.ByteSliceToString(name.Release[:])},
		{Key: "zfs", Value: strings.TrimSpace(string(release))},
		{Key: "zfstpl", Value: field(zfstpl, 2)},
		{Key: "containerd", Value: field(containerd, 2)},
		{Key: "zfs-plugin", Value: plugin},
		{Key: "runc", Value: field(runc, 2)},
		{Key: "date", Value: time.Now().UTC().Format(time.DateOnly)},
	}, nil
}

// field is a word of what a program says about its version: "containerd
// github.com/containerd/containerd/v2 2.4.2".
func field(text string, n int) string {
	if fields := strings.Fields(text); n < len(fields) {
		return fields[n]
	}
	return strings.TrimSpace(text)
}

func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(info)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func memoryOfMachine() string {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
}

// machine distinguishes an emulated machine from one with real processors. Under KVM,
// QEMU's machines have KVM's clock; emulated ones have not.
func machine() string {
	vendor, _ := os.ReadFile("/sys/class/dmi/id/sys_vendor")
	clocks, _ := os.ReadFile("/sys/devices/system/clocksource/clocksource0/available_clocksource")
	switch {
	case strings.Contains(string(clocks), "kvm-clock"):
		return "virtual (KVM)"
	case strings.Contains(string(vendor), "QEMU"):
		return result.Emulated
	default:
		return "this host"
	}
}
