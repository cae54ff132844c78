package diff

import "time"

// node is what a name stands for: what stat tells of it.
type node struct {
	object uint64 // its number; with born, its identity as long as ZFS knows it
	born   time.Time
	mode   uint32 // type and permissions, as in stat(2)
	uid    uint32
	gid    uint32
	links  uint32
	major  uint32 // of a device node
	minor  uint32
	size   int64
	mtime  time.Time
	ctime  time.Time
}

// The types of nodes, as stat(2) has them in its mode.
const (
	typeMask    = 0o170000
	typeSocket  = 0o140000
	typeLink    = 0o120000
	typeRegular = 0o100000
	typeBlock   = 0o060000
	typeDir     = 0o040000
	typeChar    = 0o020000
	typeFifo    = 0o010000
)

func (n node) is(kind uint32) bool { return n.mode&typeMask == kind }
func (n node) isDir() bool         { return n.is(typeDir) }

// linked tells whether a node may have more names than one.
func (n node) linked() bool { return n.links > 1 && !n.isDir() }

// sameObject tells whether two nodes of an ancestor and of what came of it are one
// object: numbers are used again, but not with the same time of birth.
func (n node) sameObject(o node) bool { return n.object == o.object && n.born.Equal(o.born) }

// untouched tells whether nothing was done to an object between an ancestor and
// what came of it.
func (n node) unchanged(o node) bool { return n.sameObject(o) && n.ctime.Equal(o.ctime) }

// sameAttributes compares all that stat tells of two nodes and a layer can hold.
func (n node) sameAttributes(o node) bool {
	return n.mode == o.mode && n.uid == o.uid && n.gid == o.gid && n.major == o.major && n.minor == o.minor &&
		n.mtime.Equal(o.mtime) && (n.isDir() || n.size == o.size)
}

// direntry is a name in a directory, and what the directory says of it.
type direntry struct {
	name   string
	object uint64
	dir    bool
}
