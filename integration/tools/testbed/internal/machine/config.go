package machine

import (
	"io"
	"regexp"
	"time"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/wire"
)

// Config says what guest to run, and what it is to do.
type Config struct {
	// Kernel is an ELF file with an entry for PVH, Agent the static program that becomes its first
	// process, Modules what it needs to see a virtio disk, in the order of
	// loading, and Image the root file system.
	Kernel  string
	Agent   string
	Modules []string
	Image   string
	// Parameters are added to the kernel's command line.
	Parameters []string

	// Scratch is a directory for what the run needs on the host.
	Scratch string

	// Accel is "kvm" or "tcg".
	Accel  string
	Memory int64
	Cores  int
	Disks  []*Disk

	// Put are the files to put in, by host path and guest path.
	Put []Put
	// Out is the directory on the host for what the guest's Order.Out
	// directory has in the end; empty means none.
	Out string

	Order wire.Order
	// Input is what the command reads, if the order says so.
	Input   io.Reader
	Windows <-chan wire.Window
	Stdout  io.Writer
	Stderr  io.Writer
	// Console gets a copy of the guest's console. May be nil.
	Console io.Writer
	// Say reports to the user what happens. It is not for errors.
	Say func(format string, args ...any)

	// BootTimeout is the limit until the command starts, Timeout for all.
	BootTimeout time.Duration
	Timeout     time.Duration
	// KillAfter, counted from the start of the command, and KillOn, a line of
	// its output, cut the guest's power. Zero means never.
	KillAfter time.Duration
	KillOn    *regexp.Regexp
}

// Put is a file or directory to put in.
type Put struct {
	Host, Guest string
}

// Result is how a run ended that ended as it should.
type Result struct {
	// Code is the exit status of the command, or StatusKilled.
	Code int
	// Killed says that the power was cut, as KillAfter or KillOn asked for.
	Killed bool
	// Boot is the time from the start of QEMU to that of the command, Total
	// until QEMU has ended.
	Boot, Total time.Duration
	Greeting    wire.Greeting
}

// StatusKilled is the exit status of a guest whose power was cut.
const StatusKilled = 137
