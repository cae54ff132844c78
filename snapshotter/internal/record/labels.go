package record

import (
	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// TargetOf returns the chain ID for which an active snapshot was prepared: that of
// containerd's label, otherwise that in an extraction's key. It is a hint: Commit checks
// that its name has the same chain ID.
func TargetOf(info snapshots.Info) string {
	if ref := info.Labels[snapshots.LabelSnapshotRef]; layout.IsChainID(ref) {
		return ref
	}
	chain, _ := layout.ExtractTarget(layout.ClientName(info.Name))
	return chain
}

// IsExtraction reports whether info is that of an extraction. Its labels are then not
// trusted: they can be annotations of an image.
func IsExtraction(info snapshots.Info) bool {
	return info.Kind == snapshots.KindActive && (info.Labels[snapshots.LabelSnapshotRef] != "" || TargetOf(info) != "")
}
