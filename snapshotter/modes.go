package snapshotter

// CleanupMode selects when cleanups run. An operation that runs out of space reclaims it
// in every mode.
type CleanupMode = Mode

// The modes.
const (
	CleanupGC         = ModeGC         // in Cleanup, which containerd calls after each garbage collection
	CleanupBackground = ModeBackground // while no operation writes
	CleanupManual     = ModeManual     // only in Clean
)

// ForeignPolicy selects what a cleanup does with foreign snapshots, such as those of
// sanoid or zfs-auto-snapshot, of the datasets that it destroys.
type ForeignPolicy = Foreign

// The policies.
const (
	KeepForeign    = ForeignKeep    // keeps the snapshots, and with them their dataset
	DestroyForeign = ForeignDestroy // destroys them together with their dataset
)

// CleanupProgress is the progress of a cleanup, in datasets.
type CleanupProgress = Progress
