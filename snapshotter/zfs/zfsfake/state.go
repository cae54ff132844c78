package zfsfake

import (
	"maps"
	"strings"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// State is what a pool has.
type State struct {
	TXG        uint64
	Release    zfs.Release     // of ZFS; the zero value is the latest
	Lacks      []string        // features that it does not have
	Full       bool            // no free space
	Size       uint64          // in bytes; 0 for defaultPoolSize and never full
	Checkpoint bool            // the pool has a checkpoint
	Suspended  bool            // it is suspended, and says so
	Mounted    map[string]bool // file systems and snapshots
	// Attached counts the mounts that Attach made. They end with the process.
	Attached map[string]int
	FS       map[string]FS
}

// FS is a file system. Its content is a string to which writers append.
type FS struct {
	Origin  string
	TXG     uint64
	Born    time.Time
	Content string
	Dirty   string // written through mmap, not flushed
	Snaps   map[string]Snap
	Props   map[string]string // user properties
	Native  map[string]string
	Dir     string // the directory that AttachRoot and AttachWritable open, if a test has one
}

// Snap is a snapshot.
type Snap struct {
	TXG     uint64
	Content string
}

// Clone returns a copy.
func (s State) Clone() State {
	c := s
	c.Attached = maps.Clone(s.Attached)
	c.Mounted, c.FS = maps.Clone(s.Mounted), make(map[string]FS, len(s.FS))
	for name, fs := range s.FS {
		fs.Snaps, fs.Props, fs.Native = maps.Clone(fs.Snaps), maps.Clone(fs.Props), maps.Clone(fs.Native)
		c.FS[name] = fs
	}
	return c
}

// Create creates a file system with properties, user properties and others.
func (s *State) Create(name string, props map[string]string) {
	fs := FS{TXG: s.TXG, Born: time.Now(), Snaps: make(map[string]Snap), Props: make(map[string]string), Native: make(map[string]string)}
	for k, v := range props {
		if strings.Contains(k, ":") {
			fs.Props[k] = v
		} else {
			fs.Native[k] = v
		}
	}
	s.FS[name] = fs
}
