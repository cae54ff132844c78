//go:build linux

package main

import (
	"time"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
)

// plan says what is measured and how often.
type plan struct {
	name string
	// prefix begins the names of what is measured, only are the contenders: all
	// where there are none.
	prefix string
	only   []string
	// levels are the numbers of clones, ascending.
	levels []int
	// rounds is how often each contender has its turn at a level, cycles how
	// often a turn does each operation.
	rounds, cycles int
	// bursts are the levels at which many callers prepare at once.
	bursts      []int
	burstRounds int
	// burstNot are contenders whose bursts take too long.
	burstNot []string
	// removal is the level at which all clones are removed.
	removal, removalRounds int
	// containers is the level at which containers are run.
	containers, containerRounds int
	// firstRounds is how often a container is run at that level until its first output.
	firstRounds int
	// extractRounds is how often each contender has its turn at applying a layer and
	// committing it; cycles apply to it too.
	extractRounds int
	// waitRounds is how often each contender has its turn at what is counted and not timed.
	waitRounds int
	// loads is set if everything is measured twice: on an idle pool and on a busy one.
	loads bool
	// starts are numbers of snapshots, ascending, that a daemon is started
	// with, and its memory looked at.
	starts      []int
	startRounds int
	idle        time.Duration // before the memory is looked at
	// mountRounds is how often each contender has its turn at preparing and
	// mounting; cycles apply to it too.
	mountRounds int
	// archive is an image that is imported so many times, after everything else.
	archive string
	imports int
	// patience is what one contender may take for one thing, at one level:
	// after that it has no further turn. It has one at least.
	patience time.Duration
	// slow is the patience with containerd's zfs plugin, if it is another one. slowMost is the
	// greatest number of clones that it is measured with, 0 for any.
	slow     time.Duration
	slowMost int
	// before is a directory of an older zfstpl's programs, or "".
	before string
}

const (
	burstPrepares = 64
	burstCallers  = 16
	// fillers is how many callers make the clones that are there before
	// anything is measured.
	fillers = 16
	// Of the first changedClones clones every changedEach-th has files of its
	// own, as containers that were used have.
	changedClones, changedEach = 500, 10
	// commandMost is how many snapshots the command client is started with.
	commandMost = 1000
)

var full = plan{
	name:   "full",
	levels: []int{10, 100, 500}, rounds: 6, cycles: 3,
	bursts: []int{10, 500}, burstRounds: 3,
	removal: 500, removalRounds: 2,
	containers: 10, containerRounds: 8,
	patience: 2 * time.Minute,
}

// scale and quickScale are of zfstpl alone: what many clones change, a start with
// many, and what the daemon needs to remember them.
var scale = plan{
	name: "full", prefix: report.ScalePrefix, only: []string{report.Native, report.Socket, report.Floor},
	levels: []int{10, 3000}, rounds: 6, cycles: 3,
	starts: []int{1000, 3000, 5000}, startRounds: 4, idle: 30 * time.Second,
	patience: 2 * time.Minute,
}

var quickScale = plan{
	name: "quick", prefix: report.ScalePrefix, only: scale.only,
	levels: []int{10, 100}, rounds: 1, cycles: 2,
	starts: []int{100}, startRounds: 2, idle: 3 * time.Second,
	patience: 20 * time.Second,
}

// held and quickHeld compare held mounts with mounts of datasets. The rounds of held
// are multiples of its three contenders, so that each begins equally often.
var held = plan{
	name: "full", prefix: report.HeldPrefix, only: []string{report.Native, report.ZFSMounts, report.OverlayZFS},
	levels: []int{10}, rounds: 6, mountRounds: 12, cycles: 3,
	containers: 10, containerRounds: 18,
	imports:  3,
	patience: 30 * time.Minute,
}

var quickHeld = plan{
	name: "quick", prefix: report.HeldPrefix, only: held.only,
	levels: []int{10}, rounds: 1, mountRounds: 1, cycles: 2,
	containers: 10, containerRounds: 2,
	imports:  1,
	patience: 20 * time.Second,
}

// counted and quickCounted count what each operation waits for.
var counted = plan{
	name: "full", only: []string{report.Native, report.Builtin, report.ZFSPlugin, report.OverlayZFS, report.EmptyProxy, report.LogOnly},
	levels: []int{10}, waitRounds: 3, cycles: 1,
	patience: 10 * time.Minute,
}

var quickCounted = plan{
	name: "quick", only: counted.only,
	levels: []int{10}, waitRounds: 1, cycles: 1,
	patience: 10 * time.Minute,
}

// imported and quickImported compare the import of an image.
var imported = plan{
	name: "full", only: []string{report.Native, report.ZFSPlugin, report.OverlayZFS, report.OverlayExt4},
	imports: 3, cycles: 1,
	patience: 30 * time.Minute,
}

var quickImported = plan{
	name: "quick", only: []string{report.Native, report.OverlayZFS},
	imports: 1, cycles: 1,
	patience: 30 * time.Minute,
}

// loads and quickLoads compare an idle pool with a busy one. Each cycle has two Prepares, so
// that loads has a hundred of them.
var loads = plan{
	name: "full", only: onZFS, loads: true,
	levels: []int{10, 500}, rounds: 10, cycles: 5,
	bursts: []int{10, 500}, burstRounds: 3,
	containers: 10, firstRounds: 8, extractRounds: 3,
	patience: 8 * time.Minute, slow: 90 * time.Second, slowMost: 10,
}

var quickLoads = plan{
	name: "quick", only: onZFS, loads: true,
	levels: []int{10}, rounds: 1, cycles: 2,
	bursts: []int{10}, burstRounds: 1, burstNot: []string{report.ZFSPlugin},
	containers: 10, firstRounds: 1, extractRounds: 1,
	patience: 20 * time.Second,
}

// onZFS are the contenders on ZFS, and what proxies cost.
var onZFS = []string{
	report.Native, report.Builtin, report.ZFSPlugin, report.OverlayZFS, report.Socket, report.Floor,
	report.EmptyProxy, report.LogOnly,
}

var quick = plan{
	name:   "quick",
	levels: []int{10, 100}, rounds: 1, cycles: 2,
	bursts: []int{10}, burstRounds: 1,
	removal: 100, removalRounds: 1,
	containers: 10, containerRounds: 1,
	patience: 20 * time.Second,
}
