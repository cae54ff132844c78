package snapshotter

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// PropertyPrefix begins the name of every user property of ours.
const PropertyPrefix = "zfstpl:"

// VersionProperty stands on a base and says which layout it has.
const VersionProperty = PropertyPrefix + "version"

// The user properties of ours. Those of a record are
//
//	zfstpl:record:<id>      "<number of parts> <the first part>"
//	zfstpl:record:<id>:<n>  the n-th part, from 1
//
// and together hold one line of JSON.
const (
	propRecord   = "zfstpl:record:"   // on templates and runtimes
	propGarbage  = "zfstpl:trash"     // since when a dataset waits to be destroyed, RFC 3339
	propLastUsed = "zfstpl:last-used" // when a template's last record went, RFC 3339
	propDiffID   = "zfstpl:diff-id"   // the digest of the uncompressed layer that a template was unpacked from
	propBlob     = "zfstpl:blob"      // the digest of the blob that this layer was read from
)

const (
	// maxParts bounds a record to 30 properties, some 240 kB of labels.
	maxParts = 30
	// partSize leaves room in the first property for the count.
	partSize = zfs.MaxPropertyValue - 8
	maxKey   = 4096
)

// record is a snapshot as containerd knows it. It is immutable; an update
// replaces it.
type record struct {
	id     layout.ID
	seq    uint64 // of two records with one key the greater is the valid one
	info   snapshots.Info
	target string // active: the chain ID it is being extracted for, or ""
	// standInFor is the chain ID of the layer that an active record stands for, or "":
	// its dataset is a clone of that layer's template, and not of the parent's.
	standInFor string
	from       string // committed: the ID of the active record it was made of, or ""
	// remapped says that the owners of the files were changed for a user
	// namespace, by containerd or in a snapshot below: they are mapped already.
	remapped bool
	// healed says that a committed record was lost and restored: its parent is not
	// known, though its template stands on another layer.
	healed bool
	// lost is the parent that the record names and that is not there. info has none
	// then, so that containerd can remove the snapshot.
	lost string

	// dataset carries the record: an active one's runtime, else the template.
	dataset string
	// template is what the snapshot shows or, for an active one, came from.
	template *template
	// props are the names of the properties that hold the record.
	props []string
}

// stored is a record's form in JSON.
type stored struct {
	Seq        uint64            `json:"seq"`
	Kind       string            `json:"kind"`
	Name       string            `json:"name"`
	Parent     string            `json:"parent,omitempty"`
	Target     string            `json:"target,omitempty"`
	From       string            `json:"from,omitempty"`
	StandInFor string            `json:"stands_for,omitempty"`
	Remap      bool              `json:"remapped,omitempty"`
	Healed     bool              `json:"healed,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Created    time.Time         `json:"created"`
	Updated    time.Time         `json:"updated"`
}

// checkName refuses names and keys that no property could hold. What it
// accepts never becomes part of a dataset name.
func checkName(what, name string) error {
	reason := ""
	switch {
	case name == "":
		reason = "is empty"
	case len(name) > maxKey:
		reason = fmt.Sprintf("is longer than %d bytes", maxKey)
	case !utf8.ValidString(name):
		reason = "is not UTF-8"
	case strings.ContainsRune(name, 0):
		reason = "holds a NUL"
	}
	if reason != "" {
		return fmt.Errorf("%s %.80q %s: %w", what, name, reason, errdefs.ErrInvalidArgument)
	}
	return nil
}

// properties encodes r. Labels too large to be held are refused here, before
// anything is changed.
func (r *record) properties() (map[string]string, error) {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	err := enc.Encode(stored{
		Seq: r.seq, Kind: strings.ToLower(r.info.Kind.String()), Name: r.info.Name, Parent: cmp.Or(r.info.Parent, r.lost),
		Target: r.target, From: r.from, StandInFor: r.standInFor, Remap: r.remapped, Healed: r.healed, Labels: r.info.Labels, Created: r.info.Created, Updated: r.info.Updated,
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", r.info.Name, err)
	}
	for k, v := range r.info.Labels {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return nil, fmt.Errorf("snapshot %q: label %q is not UTF-8: %w", r.info.Name, k, errdefs.ErrInvalidArgument)
		}
	}
	text := ascii(strings.TrimSuffix(line.String(), "\n"))
	parts := split(text, partSize)
	if len(parts) > maxParts {
		return nil, fmt.Errorf("snapshot %q: its labels take %d bytes, more than the %d a dataset's properties hold: %w",
			r.info.Name, len(text), maxParts*partSize, errdefs.ErrInvalidArgument)
	}
	props := make(map[string]string, len(parts))
	first := propRecord + r.id.String()
	for i, part := range parts {
		if i == 0 {
			props[first] = strconv.Itoa(len(parts)) + " " + part
		} else {
			props[first+":"+strconv.Itoa(i)] = part
		}
	}
	r.props = slices.Sorted(maps.Keys(props)) // the first part sorts first
	return props, nil
}

// ascii escapes what is not printable ASCII in a line of JSON: the zfs command
// prints no other values from a channel program.
func ascii(line string) string {
	var b strings.Builder
	for _, r := range line {
		switch {
		case r < 0x7f:
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		}
	}
	return b.String()
}

// split cuts s into parts of at most size bytes without cutting a character.
func split(s string, size int) []string {
	var parts []string
	for len(s) > size {
		n := size
		for !utf8.RuneStart(s[n]) {
			n--
		}
		parts = append(parts, s[:n])
		s = s[n:]
	}
	return append(parts, s)
}

// set are the ops that write r, answering an error for what cannot be written.
// The first part comes last: a record that was cut off is none.
func (r *record) set() ([]zfs.Op, error) {
	props, err := r.properties()
	if err != nil {
		return nil, err
	}
	ops := make([]zfs.Op, 0, len(props))
	for _, name := range slices.Backward(r.props) {
		ops = append(ops, zfs.Set(r.dataset, name, props[name]))
	}
	return ops, nil
}

// clear are the ops that take r away, the first part first.
func (r *record) clear() []zfs.Op {
	ops := make([]zfs.Op, 0, len(r.props))
	for _, name := range r.props {
		ops = append(ops, zfs.Inherit(r.dataset, name))
	}
	return ops
}

// readRecords decodes the records among a dataset's properties. A corrupt one
// is answered as an error beside those that can be read.
func readRecords(d zfs.Dataset) ([]*record, error) {
	var records []*record
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.Props)) {
		rest, ok := strings.CutPrefix(name, propRecord)
		if !ok || strings.Contains(rest, ":") {
			continue
		}
		r, err := readRecord(d, name, rest)
		if err != nil {
			errs = append(errs, fmt.Errorf("property %s of %s: %w", name, d.Name, err))
			continue
		}
		records = append(records, r)
	}
	return records, errors.Join(errs...)
}

// hasRecord tells whether a dataset carries a record, which may be one that cannot
// be read.
func hasRecord(d zfs.Dataset) bool {
	for name := range d.Props {
		if rest, ok := strings.CutPrefix(name, propRecord); ok && !strings.Contains(rest, ":") {
			return true
		}
	}
	return false
}

// clearRemains are the ops that take away what was left of records whose first part is
// gone: the clearing of a long one was cut off, or its writing.
func partialRecordOps(d zfs.Dataset) []zfs.Op {
	var ops []zfs.Op
	for _, name := range slices.Sorted(maps.Keys(d.Props)) {
		id, _, ok := strings.Cut(strings.TrimPrefix(name, propRecord), ":")
		if !ok || !strings.HasPrefix(name, propRecord) || d.Props[propRecord+id] != "" {
			continue
		}
		if _, ok := layout.ParseID(id); ok {
			ops = append(ops, zfs.Inherit(d.Name, name))
		}
	}
	return ops
}

func readRecord(d zfs.Dataset, name, idDigits string) (*record, error) {
	id, ok := layout.ParseID(idDigits)
	if !ok {
		return nil, errors.New("not a record's ID")
	}
	count, line, ok := strings.Cut(d.Props[name], " ")
	parts, err := strconv.Atoi(count)
	if !ok || err != nil || parts < 1 || parts > maxParts {
		return nil, errors.New("does not begin with its number of parts")
	}
	props := []string{name}
	for i := 1; i < parts; i++ {
		part := name + ":" + strconv.Itoa(i)
		value, ok := d.Props[part]
		if !ok {
			return nil, fmt.Errorf("part %d of %d is missing", i+1, parts)
		}
		line += value
		props = append(props, part)
	}
	var s stored
	if err := json.Unmarshal([]byte(line), &s); err != nil {
		return nil, err
	}
	kind := snapshots.ParseKind(s.Kind)
	if kind == snapshots.KindUnknown || s.Name == "" {
		return nil, fmt.Errorf("kind %q, name %q", s.Kind, s.Name)
	}
	slices.Sort(props)
	return &record{
		id: id, seq: s.Seq, target: s.Target, from: s.From, standInFor: s.StandInFor, remapped: s.Remap, healed: s.Healed, dataset: d.Name, props: props,
		info: snapshots.Info{Kind: kind, Name: s.Name, Parent: s.Parent, Labels: s.Labels, Created: s.Created, Updated: s.Updated},
	}, nil
}

// publicInfo is the record's info as a caller may keep it: labels are shared
// by nobody.
func (r *record) publicInfo() snapshots.Info {
	info := r.info
	info.Labels = maps.Clone(info.Labels)
	return info
}
