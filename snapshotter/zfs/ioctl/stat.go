package ioctl

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// Dataset is a file system, volume or snapshot with its properties.
type Dataset struct {
	Stats
	Created    time.Time // to the second, UTC
	Used       uint64    // bytes that destroying it and everything below it would free
	Referenced uint64    // bytes that it refers to, including shared ones
	Available  uint64    // bytes that can still be written, within quotas; 0 for a snapshot
	Quota      uint64    // the quota of it and everything below it; 0 for none
	Sync       uint64    // the property sync: SyncStandard and so on
	// Latest is the short name of the dataset's own newest snapshot, or "".
	Latest string
	// Mountpoint is "legacy", "none" or a directory, without the pool's altroot;
	// "" if the dataset is not a file system.
	Mountpoint string
	// User are the user properties that are set on the dataset itself, including
	// received ones, or nil.
	User map[string]string

	below uint64 // bytes used by the datasets below it
}

// The values of the property sync.
const (
	SyncStandard = 0
	SyncAlways   = 1
	SyncDisabled = 2
)

// Stats is the fixed part of a dataset's state.
type Stats struct {
	Name      string
	Origin    string // the snapshot it is a clone of, or ""
	GUID      uint64
	CreateTXG uint64 // transaction group that created it
	Clones    uint64 // of a snapshot: its clones
	Volume    bool
	Snapshot  bool
}

// Stat returns the state of a dataset.
//
// For a snapshot the kernel lists the clones by name: use FastStat for one that may
// have many.
func (h *Handle) Stat(ctx context.Context, name string) (Dataset, error) {
	c := newCommand(name)
	defer c.free()
	c.wantOut = true
	if err := h.read(ctx, reqObjsetStats, c); err != nil {
		return Dataset{}, fail("stat", name, err)
	}
	d, err := c.dataset()
	return d, fail("stat", name, err)
}

// FastStat returns the fixed part of a dataset's state. Its cost does not depend on
// clones or children.
func (h *Handle) FastStat(ctx context.Context, name string) (Stats, error) {
	c := newCommand(name)
	defer c.free()
	c.simple = true
	if err := h.read(ctx, reqObjsetStats, c); err != nil {
		return Stats{}, fail("stat", name, err)
	}
	return c.stats(), nil
}

// Written returns how many bytes of a file system or snapshot were written after an
// earlier snapshot, which may be its origin or an origin further back. It costs less
// than Stat, because no objset is opened.
//
//	ENOENT   one of the two does not exist
//	EINVAL   the snapshot is not earlier
func (h *Handle) Written(ctx context.Context, name, snapshot string) (uint64, error) {
	c := newCommand(name)
	defer c.free()
	c.value = snapshot
	if err := h.read(ctx, reqSpaceWritten, c); err != nil {
		return 0, fail("written", name, err)
	}
	return c.get(atCookie), nil
}

// objsetFilesystem is DMU_OST_ZFS, the type of a file system.
const objsetFilesystem = 2

func (c *command) stats() Stats {
	return Stats{
		Name:      c.text(atName, nameSize),
		Origin:    c.text(atStats+statsOrigin, statsOriginSize),
		GUID:      c.get(atStats + statsGUID),
		CreateTXG: c.get(atStats + statsCreateTXG),
		Clones:    c.get(atStats + statsClones),
		Volume:    c.raw[atStats+statsType] != objsetFilesystem,
		Snapshot:  c.raw[atStats+statsSnapshot] != 0,
	}
}

// dataset parses the result of a call: the fixed part, and the list { property: {
// "value": number or text, "source": dataset } }.
func (c *command) dataset() (Dataset, error) {
	d := Dataset{Stats: c.stats()}
	var mountpoint, source string
	r := c.reader()
	for r.Next() {
		name := r.Name()
		switch string(name) {
		case "creation":
			d.Created = time.Unix(int64(property(r).number), 0).UTC()
		case "used":
			d.Used = property(r).number
		case "referenced":
			d.Referenced = property(r).number
		case "available":
			d.Available = property(r).number
		case "quota":
			d.Quota = property(r).number
		case "sync": // not there if nothing sets it
			d.Sync = property(r).number
		case "usedbychildren":
			d.below = property(r).number
		case "prevsnap":
			// For a clone without snapshots this is its origin.
			if of, short, _ := strings.Cut(string(property(r).text), "@"); of == d.Name {
				d.Latest = short
			}
		case "mountpoint":
			p := property(r)
			mountpoint, source = string(p.text), string(p.source)
		default:
			if bytes.IndexByte(name, ':') >= 0 {
				d.takeUser(name, property(r))
			}
		}
	}
	if !d.Volume && !d.Snapshot {
		d.Mountpoint = mountpointOf(d.Name, mountpoint, source)
	}
	return d, r.Err()
}

type rawProperty struct {
	number       uint64
	text, source []byte // nil if it has none
}

// property reads the list of the current pair of r.
func property(r *nvlist.Reader) (p rawProperty) {
	if !r.Enter() {
		return p
	}
	for r.Next() {
		switch string(r.Name()) {
		case "value":
			p.number, _ = r.Uint64()
			p.text, _ = r.Bytes()
		case "source":
			p.source, _ = r.Bytes()
		}
	}
	r.Leave()
	return p
}

// takeUser stores a user property unless it is inherited. The kernel returns the
// dataset where it is set, or "$recvd" for a property received on this one.
func (d *Dataset) takeUser(name []byte, p rawProperty) {
	own := string(p.source) == d.Name || string(p.source) == "$recvd"
	// userquota@… may have a colon, but is not a user property.
	if !own || p.text == nil || bytes.IndexByte(name, '@') >= 0 {
		return
	}
	if d.User == nil {
		d.User = make(map[string]string)
	}
	d.User[string(name)] = string(p.text)
}

// mountpointOf returns the mountpoint of a file system, from the stored value and the
// dataset where it is set: the path from that dataset to the file system is appended.
// The default of a pool's root is /pool.
func mountpointOf(name, set, source string) string {
	if set == "" {
		return "/" + name
	}
	if !strings.HasPrefix(set, "/") || source == name || source == "$recvd" {
		return set
	}
	below, ok := strings.CutPrefix(name, source+"/")
	if !ok {
		return set
	}
	return strings.TrimSuffix(set, "/") + "/" + below
}
