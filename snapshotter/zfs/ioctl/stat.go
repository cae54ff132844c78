package ioctl

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// Source is where a property's value was set.
type Source uint8

const (
	Local    Source = 1 // on the dataset itself
	Received Source = 2 // on the dataset itself, by a receive
)

// Property is a user property's value on the dataset itself.
type Property struct {
	Value  string
	Source Source
}

// Dataset is a file system, volume or snapshot and its properties.
type Dataset struct {
	Stats
	Created    time.Time // to the second, UTC
	Used       uint64    // bytes that would come back if it and all below it went
	Referenced uint64    // bytes it holds, shared ones included
	Available  uint64    // bytes that could still be written, quotas included; 0 for a snapshot
	Quota      uint64    // bytes that it and all below it may hold; 0 for no bound
	// Latest is the dataset's own newest snapshot, the short name; "" where it
	// has none.
	Latest string
	// Mountpoint is "legacy", "none" or a directory, without the pool's
	// altroot; "" for what is no file system.
	Mountpoint string
	// User are the user properties set on the dataset itself, not inherited
	// ones. nil where there are none.
	User map[string]Property

	below uint64 // bytes of what lies below it
}

// Stats is the fixed part of a dataset's state.
type Stats struct {
	Name         string
	Origin       string // the snapshot it is a clone of, or ""
	GUID         uint64
	CreateTXG    uint64 // transaction group that made it
	Clones       uint64 // of a snapshot: file systems with it as their origin
	Volume       bool
	Snapshot     bool
	Inconsistent bool // a receive is under way, or was broken off
}

// Stat answers the state of one dataset.
//
// The kernel lists the clones of a snapshot for it, by name: for one that may
// have many, use FastStat.
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

// FastStat answers the fixed part of a dataset's state. It costs the same
// whatever hangs on the dataset.
func (h *Handle) FastStat(ctx context.Context, name string) (Stats, error) {
	c := newCommand(name)
	defer c.free()
	c.simple = true
	if err := h.read(ctx, reqObjsetStats, c); err != nil {
		return Stats{}, fail("stat", name, err)
	}
	return c.stats(), nil
}

// Written answers how many bytes a file system or snapshot holds that were
// written after a snapshot before it, which may be its origin or one further
// back. It costs less than Stat: no objset is opened.
//
//	ENOENT   one of the two is not there
//	EINVAL   the snapshot is not before it
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
		Name:         c.text(atName, nameSize),
		Origin:       c.text(atStats+statsOrigin, statsOriginSize),
		GUID:         c.get(atStats + statsGUID),
		CreateTXG:    c.get(atStats + statsCreateTXG),
		Clones:       c.get(atStats + statsClones),
		Volume:       c.raw[atStats+statsType] != objsetFilesystem,
		Snapshot:     c.raw[atStats+statsSnapshot] != 0,
		Inconsistent: c.raw[atStats+statsInconsistent] != 0,
	}
}

// dataset reads what a call answered: the fixed part, and the list
// { property: { "value": number or text, "source": dataset } }.
func (c *command) dataset() (Dataset, error) {
	d := Dataset{Stats: c.stats()}
	var mountpoint, source string
	answer, _ := c.answer()
	r := nvlist.NewReader(answer)
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
	text, source []byte
	isText       bool
}

// property reads the list of the pair that r is at.
func property(r *nvlist.Reader) (p rawProperty) {
	if !r.Enter() {
		return p
	}
	for r.Next() {
		switch string(r.Name()) {
		case "value":
			p.number, _ = r.Uint64()
			p.text, p.isText = r.Bytes()
		case "source":
			p.source, _ = r.Bytes()
		}
	}
	r.Leave()
	return p
}

// takeUser stores a user property unless it is inherited. The kernel names the
// dataset where it was set, or "$recvd" for this one by a receive.
func (d *Dataset) takeUser(name []byte, p rawProperty) {
	var source Source
	switch string(p.source) {
	case d.Name:
		source = Local
	case "$recvd":
		source = Received
	default:
		return
	}
	// userquota@… may have a colon and is no user property.
	if !p.isText || bytes.IndexByte(name, '@') >= 0 {
		return
	}
	if d.User == nil {
		d.User = make(map[string]Property)
	}
	d.User[string(name)] = Property{Value: string(p.text), Source: source}
}

// mountpointOf works out where a file system is to be mounted, from what the
// kernel stores and the dataset that was set on: what lies between that and
// the file system is appended. A pool's root has /pool unless it was set.
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
