package report

import (
	"slices"
	"strings"
)

// Contenders, as they are called in the results.
const (
	Native  = "zfstpl-native"
	Command = "zfstpl-command"
	// ZFSMounts is the native client with mounts = "zfs": no mount is held.
	ZFSMounts    = "zfstpl-zfs-mounts"
	ZFSPlugin    = "zfs-plugin"
	OverlayZFS   = "overlayfs-zfs"
	OverlayExt4  = "overlayfs-ext4"
	Btrfs        = "btrfs"
	OverlayBtrfs = "overlayfs-btrfs"
	Socket       = "zfstpl-socket"
	Floor        = "floor"
	// Still is the daemon's own socket while it has nothing else to do.
	Still = "zfstpl-still"
	// EmptyProxy and LogOnly are proxy snapshotters of package minimal.
	EmptyProxy = "empty-proxy"
	LogOnly    = "log-only"
	// Builtin is zfstpl compiled into containerd.
	Builtin = "zfstpl-builtin"
	// Before is the daemon of an older zfstpl.
	Before = "zfstpl-before"
)

// contenders are all of them in the order of the tables, and how the tables
// call them.
var contenders = []struct{ name, title string }{
	{Native, "zfstpl"},
	{Command, "zfstpl, command client"},
	{ZFSMounts, "zfstpl, `mounts = \"zfs\"`"},
	{ZFSPlugin, "containerd's zfs plugin"},
	{OverlayZFS, "overlayfs on ZFS"},
	{OverlayExt4, "overlayfs on ext4"},
	{Btrfs, "btrfs"},
	{OverlayBtrfs, "overlayfs on btrfs"},
	{Socket, "zfstpl, own socket"},
	{Still, "zfstpl, own socket, no cleanup"},
	{Before, "zfstpl before, own socket"},
	{Floor, "the floor"},
	{Builtin, "zfstpl, built in"},
	{EmptyProxy, "empty proxy"},
	{LogOnly, "log only"},
}

// Operations, as they are called in the results.
const (
	Prepare   = "Prepare"
	View      = "View"
	Commit    = "Commit"
	Remove    = "Remove"
	Usage     = "Usage"
	Mounts    = "Mounts"
	Stat      = "Stat"
	Burst     = "Prepare64"
	OffDisk   = "RemoveAllOffDisk"
	RemoveAll = "RemoveAll"
	Container = "Container"
	// FirstOutput is the part of Container until the container's program has written
	// something.
	FirstOutput = "FirstOutput"
	// Extract is an Apply and the Commit that follows, ExtractSync the same with sync_fs.
	Extract     = "Extract"
	ExtractSync = "ExtractSync"
	Start       = "Start"

	// ScalePrefix makes of an operation's name that of the same in the run that
	// compares few clones with many.
	ScalePrefix = "Scale"

	// IdlePrefix and BusyPrefix make of an operation's name that of the same in the run
	// that compares an idle pool with a busy one.
	IdlePrefix = "Idle"
	BusyPrefix = "Busy"

	// TxgsPrefix and ZILPrefix make of an operation's name that of the txgs and of the ZIL
	// commits that it waits for.
	TxgsPrefix = "Txgs"
	ZILPrefix  = "ZIL"

	// TraceTook and the others make of an operation's name that of the time that it took, and
	// of the processor time of a part meanwhile: the client, containerd, the process of the
	// snapshotter if it has one, and the rest, which is mostly the kernel's threads.
	TraceTook        = "TraceTook"
	TraceClient      = "TraceClient"
	TraceContainerd  = "TraceContainerd"
	TraceSnapshotter = "TraceSnapshotter"
	TraceRest        = "TraceRest"

	// HeldPrefix makes of an operation's name that of the same in the run that
	// compares held mounts with mounts of datasets.
	HeldPrefix = "Held"
	// Mount is a mount of an active snapshot with its unmount, PrepareMount both
	// after a Prepare and a call of Mounts.
	Mount        = "Mount"
	PrepareMount = "PrepareMount"

	// Cleaning is a Prepare while what is removed is destroyed.
	Cleaning = "PrepareDuringCleanup"

	Import       = "Import"
	LayerFew     = "LayerOfFew"
	LayerMany    = "LayerOfMany"
	LayerRenamed = "LayerOfRenamed"
	LayerLarge   = "LayerOfLarge"
	// MemoryLayers is of the daemon that made them.
	MemoryLayers = "MemoryLayers"

	MemoryUsed    = "MemoryUsed"
	MemoryStarted = "MemoryStarted"
	// PeakSuffix makes of a memory's name that of the greatest it was.
	PeakSuffix = "Peak"
)

// PlanFact is the key of the fact that says which plan was measured.
const PlanFact = "plan"

// WriterFact is the key of the fact that says how much the writer of a busy pool wrote.
const WriterFact = "writer"

// operations are those that are compared, in the order of the tables.
var operations = []struct{ name, title string }{
	{Prepare, "Prepare"},
	{View, "View"},
	{Commit, "Commit"},
	{Remove, "Remove and collect one"},
	{Usage, "Usage"},
	{Mounts, "Mounts"},
	{Stat, "Stat"},
	{Burst, "64 Prepares"},
	{OffDisk, "Remove all, until destroyed"},
	{RemoveAll, "Remove all, until freed"},
	{Container, "ctr run --rm"},
}

// held are the operations of the run that compares held mounts with mounts of
// datasets.
var held = slices.Concat(operations, []struct{ name, title string }{
	{Mount, "mount and unmount by the client"},
	{PrepareMount, "Prepare, Mounts, mount and unmount"},
	{Import, "Import of the demo's image"},
})

// layers are the operations of the second half: clones then are files.
var layers = []struct{ name, title string }{
	{LayerFew, "Layer of ten changed files"},
	{LayerMany, "Layer of 20,000 new files"},
	{LayerRenamed, "Layer of a renamed tree of 20,000 files"},
	{LayerLarge, "Layer of a large new file"},
}

// thing is what there is many of.
func thing(operation string) string {
	for _, o := range layers {
		if o.name == operation {
			return "files"
		}
	}
	return "clones"
}

func operationTitle(name string) string {
	if name == Cleaning {
		return "Prepare during a cleanup"
	}
	for _, prefix := range []string{ScalePrefix, HeldPrefix, IdlePrefix, BusyPrefix} {
		name = strings.TrimPrefix(name, prefix)
	}
	for _, o := range slices.Concat(held, extractions, layers) {
		if o.name == name {
			return o.title
		}
	}
	return name
}

func contenderTitle(name string) string {
	for _, c := range contenders {
		if c.name == name {
			return c.title
		}
	}
	return name
}
