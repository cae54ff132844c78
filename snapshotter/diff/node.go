package diff

import "time"

// node is the metadata of an object, from stat.
type node struct {
	object uint64 // the inode number; with born it identifies the object
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

// The types of nodes, as in the mode of stat(2).
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

// linked reports whether a node may have more than one name.
func (n node) linked() bool { return n.links > 1 && !n.isDir() }

// sameObject reports whether two nodes, one of an ancestor and one of its descendant,
// are the same object. Numbers are reused, but not with the same birth time.
func (n node) sameObject(o node) bool { return n.object == o.object && n.born.Equal(o.born) }

// unchanged reports whether nothing was done to an object between an ancestor and its
// descendant.
func (n node) unchanged(o node) bool { return n.sameObject(o) && n.ctime.Equal(o.ctime) }

// sameAttributes compares the metadata that a layer can hold.
func (n node) sameAttributes(o node) bool {
	return n.mode == o.mode && n.uid == o.uid && n.gid == o.gid && n.major == o.major && n.minor == o.minor &&
		n.mtime.Equal(o.mtime) && (n.isDir() || n.size == o.size)
}

// direntry is an entry of a directory.
type direntry struct {
	name   string
	object uint64
	dir    bool
}
