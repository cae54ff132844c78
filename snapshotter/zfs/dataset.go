package zfs

import "time"

// Dataset is a file system in a listing.
type Dataset struct {
	Name       string
	Origin     string // the snapshot it is a clone of, or ""
	GUID       uint64
	CreateTXG  uint64 // the transaction group that created it
	Created    time.Time
	Used       uint64 // bytes that destroying it and its snapshots would free
	Refer      uint64 // bytes that it refers to, including shared ones
	Snapshots  []string
	Mountpoint string
	Props      map[string]string // user properties that are set locally; see List
}

// HasSnapshot reports whether the dataset has a snapshot with that short name.
func (d Dataset) HasSnapshot(name string) bool {
	for _, s := range d.Snapshots {
		if s == name {
			return true
		}
	}
	return false
}
