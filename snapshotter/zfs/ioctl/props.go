package ioctl

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// Clone creates the file system name as a clone of a snapshot, with user and native
// properties. It takes one transaction without properties and at least two with them,
// so a crash can leave a clone without properties. If a property fails, the clone is
// destroyed again and Each has the property.
//
//	EEXIST   name exists
//	ENOENT   the snapshot or the parent of name does not exist
//	EXDEV    the pools differ
//	EINVAL   origin is not a snapshot
//
// A full quota of the parent does not prevent a clone.
func (h *Handle) Clone(ctx context.Context, origin, name string, props map[string]string) error {
	list, err := Properties(props)
	if err != nil {
		return fail("clone", name, err)
	}
	in := nvlist.List{{Name: "origin", Value: origin}}
	if len(list) > 0 {
		in = append(in, nvlist.Pair{Name: "props", Value: list})
	}
	return h.changeList(ctx, "clone", reqClone, name, in)
}

// SetProperties sets user and native properties of a file system, or user properties
// of a snapshot; see [Properties] for the values. User properties are set in one
// transaction, all or none. Native ones can take one each; if one fails, the others
// are still set, and Each has those that failed. SetProperties does not mount
// anything.
//
//	EINVAL    a property is unknown or of the wrong type
//	E2BIG     a value is too long: a user property's has up to 8191 bytes
//	ENAMETOOLONG   a name has more than 255 bytes
//	ENOSPC    a reservation is more than the available space, or a quota less than
//	          the used space
func (h *Handle) SetProperties(ctx context.Context, name string, props map[string]string) error {
	list, err := Properties(props)
	if err != nil {
		return fail("set", name, err)
	}
	if len(list) == 0 {
		return nil
	}
	return h.changeList(ctx, "set", reqSetProp, name, list)
}

// changeList makes a call that takes a list and returns a list of errnos.
func (h *Handle) changeList(ctx context.Context, op string, r request, name string, in nvlist.List) error {
	c := newCommand(name)
	defer c.free()
	if err := c.setIn(in); err != nil {
		return fail(op, name, err)
	}
	c.wantOut = true
	return failEach(op, name, h.change(ctx, r, c), c)
}

// Properties converts values as the zfs command takes them to those that the kernel
// takes. User properties, whose names have a colon, are text. It supports the native
// properties that a base is set up with; any other is an error. Numbers are decimal
// bytes without a unit.
func Properties(props map[string]string) (nvlist.List, error) {
	l := make(nvlist.List, 0, len(props))
	for _, name := range slices.Sorted(maps.Keys(props)) {
		var value any = props[name]
		if !strings.Contains(name, ":") && !slices.Contains(textProperties, name) {
			number, ok := nativeValue(name, props[name])
			if !ok {
				return nil, fmt.Errorf("property %s=%q: %w", name, props[name], syscall.EINVAL)
			}
			value = number
		}
		l = append(l, nvlist.Pair{Name: name, Value: value})
	}
	return l, nil
}

// textProperties are the native properties that the kernel takes as text.
var textProperties = []string{"mountpoint", "sharenfs", "sharesmb"}

func nativeValue(name, text string) (uint64, bool) {
	words, ok := nativeWords[name]
	if !ok {
		return 0, false
	}
	if n, ok := words[text]; ok {
		return n, true
	}
	switch name {
	case "quota", "refquota", "reservation", "refreservation":
		n, err := strconv.ParseUint(text, 10, 64)
		return n, err == nil
	case "recordsize":
		// The kernel accepts any number here, even 1000.
		n, err := strconv.ParseUint(text, 10, 64)
		return n, err == nil && 512 <= n && n <= 16<<20 && n&(n-1) == 0
	case "compression":
		level, err := strconv.ParseUint(strings.TrimPrefix(text, "zstd-"), 10, 64)
		if err == nil && strings.HasPrefix(text, "zstd-") && 1 <= level && level <= 19 {
			return zstd | level<<7, true
		}
	}
	return 0, false
}

// nativeWords has the kernel's numbers of the words of native properties. They are the
// same on every release from 2.1 to 2.4. xattr=on is omitted: it means dir before 2.3
// and sa since.
var nativeWords = map[string]map[string]uint64{
	"acltype":            {"off": 0, "posix": 1, "nfsv4": 2},
	"atime":              onOff,
	"canmount":           {"off": 0, "on": 1, "noauto": 2},
	"compression":        {"on": 1, "off": 2, "lz4": 15, "zstd": zstd},
	"devices":            onOff,
	"dnodesize":          {"legacy": 0, "auto": 1, "1k": 1 << 10, "2k": 2 << 10, "4k": 4 << 10, "8k": 8 << 10, "16k": 16 << 10},
	"exec":               onOff,
	"longname":           onOff, // since 2.3
	"logbias":            {"latency": 0, "throughput": 1},
	"overlay":            onOff,
	"primarycache":       {"none": 0, "metadata": 1, "all": 2},
	"quota":              none,
	"readonly":           onOff,
	"recordsize":         {},
	"redundant_metadata": {"all": 0, "most": 1, "some": 2, "none": 3},
	"refquota":           none,
	"refreservation":     none,
	"relatime":           onOff,
	"reservation":        none,
	"secondarycache":     {"none": 0, "metadata": 1, "all": 2},
	"setuid":             onOff,
	"snapdir":            {"hidden": 0, "visible": 1, "disabled": 2}, // disabled since 2.3
	"sync":               {"standard": 0, "always": 1, "disabled": 2},
	"xattr":              {"off": 0, "dir": 1, "sa": 2},
}

const zstd = 16

var (
	onOff = map[string]uint64{"off": 0, "on": 1}
	none  = map[string]uint64{"none": 0}
)
