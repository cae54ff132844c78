package snapshotter

import "github.com/zfstpl/zfstpl/snapshotter/internal/reaper"

// CleanupMode selects when cleanups run. An operation that runs out of space reclaims it
// in every mode.
type CleanupMode = reaper.Mode

// The modes.
const (
	CleanupGC         = reaper.ModeGC         // in Cleanup, which containerd calls after each garbage collection
	CleanupBackground = reaper.ModeBackground // while no operation writes
	CleanupManual     = reaper.ModeManual     // only in Clean
)

// ForeignPolicy selects what a cleanup does with foreign snapshots, such as those of
// sanoid or zfs-auto-snapshot, of the datasets that it destroys.
type ForeignPolicy = reaper.Foreign

// The policies.
const (
	KeepForeign    = reaper.ForeignKeep    // keeps the snapshots, and with them their dataset
	DestroyForeign = reaper.ForeignDestroy // destroys them together with their dataset
)

// CleanupProgress is the progress of a cleanup, in datasets.
type CleanupProgress = reaper.Progress
