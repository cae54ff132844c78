package inspect

import (
	"context"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/internal/state"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/setup"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// State is the state of a dataset under a base.
type State = state.State

// The states of a dataset under a base.
const (
	Used    = state.Used    // has a record
	Cached  = state.Cached  // a template without records
	Garbage = state.Garbage // the next cleanup destroys it
	Partial = state.Partial // the remains of an interrupted commit, which the next start destroys
	Foreign = state.Foreign // not created by zfstpl, or changed by another program
)

// Entry describes a dataset under a base for an administrator.
type Entry struct {
	Dataset string           `json:"dataset"`
	Parent  string           `json:"parent,omitempty"` // the template of which it is a clone
	State   State            `json:"state"`
	Used    uint64           `json:"used"`  // bytes that only it refers to
	Refer   uint64           `json:"refer"` // bytes that it refers to
	Since   time.Time        `json:"since"` // cached: last use; otherwise: creation
	Records []snapshots.Info `json:"records,omitempty"`
	// StandInFor is the chain ID of the layer that a stand-in represents. Parent is that
	// layer's template.
	StandInFor string `json:"stands_for,omitempty"`
	// DiffID and Blob are the digests of the uncompressed layer from which a template was
	// unpacked, and of its blob, if they are known.
	DiffID digest.Digest `json:"diff_id,omitempty"`
	Blob   digest.Digest `json:"blob,omitempty"`
	// Foreign are the foreign snapshots. They keep the dataset from being destroyed unless
	// the foreign policy is "destroy".
	Foreign []string `json:"foreign_snapshots,omitempty"`
	Problem string   `json:"problem,omitempty"`
}

// Lister lists datasets. *zfs.Client implements it.
type Lister interface {
	List(ctx context.Context, root string) ([]zfs.Dataset, error)
}

// List lists the datasets under a base. It changes nothing. It may run while the daemon
// runs, and then does not see the removals in the daemon's journal.
func List(ctx context.Context, pool Lister, base layout.Base) ([]Entry, error) {
	list, err := pool.List(ctx, base.String())
	if err != nil {
		return nil, setup.ListError(base, err)
	}
	if err := setup.Check(base, list); err != nil {
		return nil, err
	}
	var entries []Entry
	for _, d := range list {
		if d.Name == base.String() || d.Name == base.Storage() || d.Name == base.Runtime() {
			continue
		}
		entries = append(entries, newEntry(base, d))
	}
	markUsedByStandIns(entries)
	return entries, nil
}

// markUsedByStandIns marks cached templates that stand-ins represent as used.
func markUsedByStandIns(entries []Entry) {
	represented := make(map[string]bool)
	for _, e := range entries {
		if e.StandInFor != "" {
			represented[e.Parent] = true
		}
	}
	for i, e := range entries {
		if represented[e.Dataset] && e.State == Cached {
			entries[i].State = Used
		}
	}
}

// newEntry returns the entry of one dataset.
func newEntry(base layout.Base, d zfs.Dataset) Entry {
	st := state.Classify(base, d)
	e := Entry{Dataset: d.Name, State: st.State, Used: d.Used, Refer: d.Refer, Since: d.Created, Problem: st.Problem}
	e.Foreign = state.ForeignSnapshots(d)
	e.Parent, _, _ = strings.Cut(d.Origin, "@")
	for _, r := range st.Records {
		e.Records = append(e.Records, r.Info)
		e.StandInFor = r.StandInFor
	}
	if _, isTemplate := base.ParseTemplate(d.Name); isTemplate {
		from := record.ReadProvenance(d)
		e.DiffID, e.Blob = from.DiffID, from.Blob
	}
	if e.State == Cached {
		e.Since = record.LastUsed(d)
	}
	return e
}

// Nodes returns the datasets of an inspection as input for a plan of evictions.
func Nodes(entries []Entry) []space.Node {
	var nodes []space.Node
	for _, e := range entries {
		nodes = append(nodes, space.Node{
			Dataset: e.Dataset, Origin: e.Parent, Bytes: e.Used,
			Garbage: e.State == Garbage && len(e.Foreign) == 0,
			Cached:  e.State == Cached && len(e.Foreign) == 0, Since: e.Since,
		})
	}
	return nodes
}
