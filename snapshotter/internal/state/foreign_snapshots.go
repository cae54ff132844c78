package state

import (
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// ForeignSnapshots returns the full names of a dataset's foreign snapshots, sorted.
func ForeignSnapshots(d zfs.Dataset) []string {
	var names []string
	for _, name := range d.Snapshots {
		if name != layout.Extracted && !strings.HasPrefix(name, zfs.TemporaryPrefix) {
			names = append(names, d.Name+"@"+name)
		}
	}
	slices.Sort(names)
	return names
}
