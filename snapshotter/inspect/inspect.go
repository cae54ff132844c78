package inspect

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/internal/recordlog"
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

	// Ready is the state of a runtime that the running daemon has made in advance. Without a
	// daemon it is garbage. List does not report it, see MarkReady.
	Ready State = "ready"
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

// List lists the datasets under a base, with the changes in the log of the base, whose root
// directory is root. It changes nothing. It may run while the daemon runs, and then does not see
// the removals of the last half second.
//
// incomplete is the reason why the log cannot be read, or does not belong to the state of the
// pool. The entries then lack recent changes: a runtime that is shown as garbage may be in use.
// If root is nil, noRoot is the reason for that.
func List(ctx context.Context, pool Lister, base layout.Base, root *os.Root, noRoot error) (entries []Entry, incomplete, err error) {
	list, incomplete, err := Datasets(ctx, pool, base, root, noRoot)
	if err != nil {
		return nil, nil, err
	}
	for _, d := range list {
		if d.Name == base.String() || d.Name == base.Storage() || d.Name == base.Runtime() {
			continue
		}
		entries = append(entries, newEntry(base, d))
	}
	markUsedByStandIns(entries)
	return entries, incomplete, nil
}

// listAttempts is how often a listing is repeated because the daemon truncated the log meanwhile.
const listAttempts = 5

// Datasets is List without a description of each dataset. It includes the base itself.
func Datasets(ctx context.Context, pool Lister, base layout.Base, root *os.Root, noRoot error) (list []zfs.Dataset, incomplete, err error) {
	dir := recordlog.Dir{Root: root}
	// The base is listed between two reads of the log. If the log was truncated in between,
	// neither has all that the listing lacks.
	for range listAttempts {
		var before, after *recordlog.Contents
		logErr := noRoot
		if root != nil {
			before, _ = dir.Read(base)
		}
		if list, err = pool.List(ctx, base.String()); err != nil {
			return nil, nil, setup.ListError(base, err)
		}
		if err := setup.Check(base, list); err != nil {
			return nil, nil, err
		}
		position, err := recordlog.PositionIn(base, list)
		if err != nil || position == (recordlog.Position{}) {
			return list, err, nil
		}
		if root != nil {
			after, logErr = dir.Read(base)
		}
		if before != nil && after != nil && (before.ID != after.ID || before.Start != after.Start) {
			incomplete = errors.New("the daemon writes the log at this moment: try again")
			continue
		}
		if incomplete = recordlog.Check(base, position, after, logErr); incomplete == nil {
			recordlog.Replay(list, after)
		}
		return list, incomplete, nil
	}
	return list, incomplete, nil
}

// MarkReady changes the state of the runtimes that the daemon of the base, which runs, has made
// in advance. A listing alone does not distinguish them from garbage.
func MarkReady(base layout.Base, entries []Entry) {
	for i, e := range entries {
		if e.State == Garbage && base.IsReadyName(e.Dataset) {
			entries[i].State = Ready
		}
	}
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
