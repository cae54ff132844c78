package model

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// Snapshot is what a client sees of a snapshot, without times.
type Snapshot struct {
	Kind   snapshots.Kind    `json:"kind"`
	Parent string            `json:"parent,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Content stands for the file system: a text that grows with each write, or a digest.
	Content string `json:"content,omitempty"`
}

// Listed returns what a listing shows of a snapshot.
func Listed(info snapshots.Info) Snapshot {
	return Snapshot{Kind: info.Kind, Parent: info.Parent, Labels: info.Labels}.Record()
}

// Record returns s without its content and with short labels.
func (s Snapshot) Record() Snapshot {
	s.Content, s.Labels = "", Short(s.Labels)
	return s
}

// Equal reports whether s and t are equal. No labels and an empty map are equal.
func (s Snapshot) Equal(t Snapshot) bool {
	return s.Kind == t.Kind && s.Parent == t.Parent && s.Content == t.Content && maps.Equal(s.Labels, t.Labels)
}

// sameRecord reports whether s and t are equal but for their content.
func (s Snapshot) sameRecord(t Snapshot) bool {
	s.Content, t.Content = "", ""
	return s.Equal(t)
}

func (s Snapshot) String() string {
	return fmt.Sprintf("%s on %q with labels %v", strings.ToLower(s.Kind.String()), s.Parent, s.Labels)
}

// maxLabel is the size in bytes up to which Short keeps the value of a label.
const maxLabel = 100

// Short returns labels with a digest in the place of each long value.
func Short(labels map[string]string) map[string]string {
	short := make(map[string]string, len(labels))
	for key, value := range labels {
		if len(value) > maxLabel {
			value = fmt.Sprintf("%d bytes, sum %.8x", len(value), sha256.Sum256([]byte(value)))
		}
		short[key] = value
	}
	return short
}

// Records returns the records of snapshots.
func Records(all map[string]Snapshot) map[string]Snapshot {
	records := make(map[string]Snapshot, len(all))
	for name, s := range all {
		records[name] = s.Record()
	}
	return records
}

// Differences describes the snapshots that differ between the model and the snapshotter.
func Differences(model, actual map[string]Snapshot) []string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(model)) {
		m := model[name]
		if a, ok := actual[name]; !ok || !m.Equal(a) {
			found = append(found, fmt.Sprintf("%q: model %.300v, content %.100q; snapshotter %.300v, content %.100q", name, m, m.Content, a, a.Content))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(actual)) {
		if _, ok := model[name]; !ok {
			found = append(found, fmt.Sprintf("%q: not in the model, snapshotter %.300v", name, actual[name]))
		}
	}
	return found
}

// kinds are the errdefs kinds of the errors of the interface.
var kinds = []error{
	errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition, errdefs.ErrInvalidArgument, errdefs.ErrResourceExhausted,
}

// ErrorKind returns the errdefs kind of an error, for comparison. It returns an error
// without a kind of the interface as it is.
func ErrorKind(err error) error {
	for _, kind := range kinds {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return err
}

// HasKind reports whether err is nil or has a kind of the interface.
func HasKind(err error) bool {
	return err == nil || slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}
