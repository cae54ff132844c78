package record

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

// The user properties of zfstpl. A record is one line of JSON, stored in parts:
//
//	zfstpl:record:<id>      "<number of parts> <the first part>"
//	zfstpl:record:<id>:<n>  the part with index n, from 1
const (
	Property         = "zfstpl:record:"   // on templates and runtimes
	LastUsedProperty = "zfstpl:last-used" // when a template's last record was removed, RFC 3339
	DiffIDProperty   = "zfstpl:diff-id"   // the digest of the uncompressed layer from which a template was unpacked
	BlobProperty     = "zfstpl:blob"      // the digest of the blob from which that layer was read
)

const (
	// maxParts limits a record to 30 properties, about 240 kB of labels.
	maxParts = 30
	// PartSize leaves space in the first property for the number of parts.
	PartSize = zfs.MaxPropertyValue - 8
	maxKey   = 4096
)

// Record is the metadata of one containerd snapshot. It is immutable; an update
// replaces it.
type Record struct {
	ID     layout.ID
	Seq    uint64 // of two records with the same key, the one with the greater seq is valid
	Info   snapshots.Info
	Target string // active: the chain ID of the layer that is unpacked into it, or ""
	// StandInFor is the chain ID of the layer that a stand-in represents, or "". The
	// stand-in's dataset is a clone of that layer's template, not of the parent's.
	StandInFor string
	From       string // committed: the ID of the active record that was committed, or ""
	// Remapped reports that the files' owners are already mapped for a user
	// namespace, by containerd or in a parent snapshot.
	Remapped bool
	// Healed reports that a committed record was lost and restored. Its parent is
	// not known, although its template may be a clone of another layer.
	Healed bool
	// Lost is the parent that the record names if that does not exist. Info.Parent
	// is then empty, so that containerd can remove the snapshot.
	Lost string

	// Dataset holds the record: the runtime of an active record, otherwise the template.
	Dataset string
	// Props holds the names of the record's properties.
	Props []string
}

// stored is the JSON form of a record.
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

// CheckName returns an error if a property cannot hold a name or key. A name that it
// accepts never becomes part of a dataset's name.
func CheckName(what, name string) error {
	var reason string
	switch {
	case name == "":
		reason = "is empty"
	case len(name) > maxKey:
		reason = fmt.Sprintf("is longer than %d bytes", maxKey)
	case !utf8.ValidString(name):
		reason = "is not UTF-8"
	case strings.ContainsRune(name, 0):
		reason = "holds a NUL"
	default:
		return nil
	}
	return fmt.Errorf("%s %.80q %s: %w", what, name, reason, errdefs.ErrInvalidArgument)
}

// TargetOf returns the chain ID for which an active snapshot was prepared: that of
// containerd's label, otherwise that in an extraction's key. It is a hint: Commit checks
// that its name has the same chain ID.
func TargetOf(info snapshots.Info) string {
	if ref := info.Labels[snapshots.LabelSnapshotRef]; layout.IsChainID(ref) {
		return ref
	}
	chain, _ := layout.ExtractTarget(layout.ClientName(info.Name))
	return chain
}

// IsExtraction reports whether info is that of an extraction. Its labels are then not
// trusted: they can be annotations of an image.
func IsExtraction(info snapshots.Info) bool {
	return info.Kind == snapshots.KindActive && (info.Labels[snapshots.LabelSnapshotRef] != "" || TargetOf(info) != "")
}

// properties encodes r as properties and sets r.props. It returns an error if the
// labels are too large for the properties of a dataset.
func (r *Record) properties() (map[string]string, error) {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	err := enc.Encode(stored{
		Seq: r.Seq, Kind: strings.ToLower(r.Info.Kind.String()), Name: r.Info.Name, Parent: cmp.Or(r.Info.Parent, r.Lost),
		Target: r.Target, From: r.From, StandInFor: r.StandInFor, Remap: r.Remapped, Healed: r.Healed, Labels: r.Info.Labels, Created: r.Info.Created, Updated: r.Info.Updated,
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", r.Info.Name, err)
	}
	for k, v := range r.Info.Labels {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return nil, fmt.Errorf("snapshot %q: label %q is not UTF-8: %w", r.Info.Name, k, errdefs.ErrInvalidArgument)
		}
	}
	text := ascii(strings.TrimSuffix(line.String(), "\n"))
	parts := split(text, PartSize)
	if len(parts) > maxParts {
		return nil, fmt.Errorf("snapshot %q: its record takes %d bytes, more than the %d that a dataset's properties can hold; use fewer or shorter labels: %w",
			r.Info.Name, len(text), maxParts*PartSize, errdefs.ErrInvalidArgument)
	}
	props := make(map[string]string, len(parts))
	first := Property + r.ID.String()
	for i, part := range parts {
		if i == 0 {
			props[first] = strconv.Itoa(len(parts)) + " " + part
		} else {
			props[first+":"+strconv.Itoa(i)] = part
		}
	}
	r.Props = slices.Sorted(maps.Keys(props)) // the first part sorts first
	return props, nil
}

// ascii escapes all characters of a line of JSON that are not ASCII. The zfs command
// does not print other values from a channel program.
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

// split splits s into parts of at most size bytes. It does not split characters.
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

// Set returns the ops that write r, or an error if r cannot be stored. They write the
// first part last: a partially written record has no first part and is ignored.
func (r *Record) Set() ([]zfs.Op, error) {
	props, err := r.properties()
	if err != nil {
		return nil, err
	}
	ops := make([]zfs.Op, 0, len(props))
	for _, name := range slices.Backward(r.Props) {
		ops = append(ops, zfs.Set(r.Dataset, name, props[name]))
	}
	return ops, nil
}

// Rewrite returns the ops that write a record again. They do not change r.
func (r *Record) Rewrite() ([]zfs.Op, error) {
	same := *r // set changes props, and records are immutable
	return same.Set()
}

// Clear returns the ops that remove r, the first part first.
func (r *Record) Clear() []zfs.Op {
	ops := make([]zfs.Op, 0, len(r.Props))
	for _, name := range r.Props {
		ops = append(ops, zfs.Inherit(r.Dataset, name))
	}
	return ops
}

// Read decodes the records in a dataset's properties. If some are corrupt, it
// returns an error and the records that it can read.
func Read(d zfs.Dataset) ([]*Record, error) {
	var records []*Record
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.Props)) {
		rest, ok := strings.CutPrefix(name, Property)
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

// ClearPartial returns the ops that remove the parts of records without a first part.
// An interrupted write or removal of a long record leaves such parts.
func ClearPartial(d zfs.Dataset) []zfs.Op {
	var ops []zfs.Op
	for _, name := range slices.Sorted(maps.Keys(d.Props)) {
		rest, ofRecord := strings.CutPrefix(name, Property)
		id, _, isPart := strings.Cut(rest, ":")
		if _, ok := layout.ParseID(id); ok && ofRecord && isPart && d.Props[Property+id] == "" {
			ops = append(ops, zfs.Inherit(d.Name, name))
		}
	}
	return ops
}

func readRecord(d zfs.Dataset, name, idDigits string) (*Record, error) {
	id, ok := layout.ParseID(idDigits)
	if !ok {
		return nil, errors.New("not the ID of a record")
	}
	count, line, ok := strings.Cut(d.Props[name], " ")
	parts, err := strconv.Atoi(count)
	if !ok || err != nil || parts < 1 || parts > maxParts {
		return nil, errors.New("value does not begin with the number of parts")
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
	return &Record{
		ID: id, Seq: s.Seq, Target: s.Target, From: s.From, StandInFor: s.StandInFor, Remapped: s.Remap, Healed: s.Healed, Dataset: d.Name, Props: props,
		Info: snapshots.Info{Kind: kind, Name: s.Name, Parent: s.Parent, Labels: s.Labels, Created: s.Created, Updated: s.Updated},
	}, nil
}

// PublicInfo returns a copy of the record's info for a caller. The copy does not share
// its labels with the record.
func (r *Record) PublicInfo() snapshots.Info {
	info := r.Info
	info.Labels = maps.Clone(info.Labels)
	return info
}
