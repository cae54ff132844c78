package zfs

import "time"

// Dataset is a file system as a listing found it.
type Dataset struct {
	Name       string
	Origin     string // the snapshot it is a clone of, or ""
	GUID       uint64
	CreateTXG  uint64 // the transaction group that made it: the greater the younger
	Created    time.Time
	Used       uint64 // bytes that would come back if it and its snapshots went
	Refer      uint64 // bytes reachable from it, shared ones included
	Snapshots  []string
	Mountpoint string
	Props      map[string]string // user properties set here, not inherited ones; see List
}

// HasSnapshot tells whether the dataset has a snapshot of that short name.
func (d Dataset) HasSnapshot(name string) bool {
	for _, s := range d.Snapshots {
		if s == name {
			return true
		}
	}
	return false
}
