package mounts

// table is what is mounted directly below a directory.
type table struct {
	top map[string]entry // the topmost mount, by its place
	all map[int]bool     // every mount, by its ID
}

// entry is a mount of a table.
type entry struct {
	mount  int
	source string // "" where it is not of type zfs
	whole  bool   // the file system's root is mounted, and writable
}
