package mounts

// table is the mounts directly below a directory.
type table struct {
	top map[string]entry // the topmost mount, by path
	all map[int]bool     // every mount, by mount ID
}

// entry is a mount of a table.
type entry struct {
	mount  int
	source string // "" if it is not of type zfs
	whole  bool   // the root of the file system is mounted, writable
}
