package snapshotter

import (
	"context"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Entry is a dataset under a base, as a person may want to see it.
type Entry struct {
	Dataset string           `json:"dataset"`
	Parent  string           `json:"parent,omitempty"` // the template it is a clone of
	State   State            `json:"state"`
	Used    uint64           `json:"used"`  // bytes only it holds
	Refer   uint64           `json:"refer"` // bytes reachable from it
	Since   time.Time        `json:"since"` // warm: last used; else: made
	Records []snapshots.Info `json:"records,omitempty"`
	// StandsFor is the chain ID of the layer that a runtime stands for: a clone of that
	// layer's template, until containerd has fetched the layer. Parent is that template.
	StandInFor string `json:"stands_for,omitempty"`
	// DiffID and Blob are the digests of the layer that a template was unpacked from,
	// uncompressed and as it was read, where they are known.
	DiffID digest.Digest `json:"diff_id,omitempty"`
	Blob   digest.Digest `json:"blob,omitempty"`
	// Foreign are snapshots that somebody else took. They keep the dataset from
	// being destroyed when nobody needs it any more.
	Foreign []string `json:"foreign_snapshots,omitempty"`
	Problem string   `json:"problem,omitempty"`
}

// Lister lists datasets. *zfs.Client is one.
type Lister interface {
	List(ctx context.Context, root string) ([]zfs.Dataset, error)
}

// Inspect answers what lies under a base, changing nothing. It may run beside
// the daemon, whose latest removals it then does not see yet.
func Inspect(ctx context.Context, pool Lister, base layout.Base) ([]Entry, error) {
	list, err := pool.List(ctx, base.String())
	if err != nil {
		return nil, baseError(base, err)
	}
	if err := CheckBase(base, list); err != nil {
		return nil, err
	}
	var entries []Entry
	for _, d := range list {
		if d.Name == base.String() || d.Name == base.Storage() || d.Name == base.Runtime() {
			continue
		}
		entries = append(entries, inspect(base, d))
	}
	markUsedByStandIns(entries)
	return entries, nil
}

// markUsedByStandIns marks the templates as used that runtimes stand for.
func markUsedByStandIns(entries []Entry) {
	represented := make(map[string]bool)
	for _, e := range entries {
		if e.StandInFor != "" {
			represented[e.Parent] = true
		}
	}
	for i, e := range entries {
		if represented[e.Dataset] && e.State == StateCached {
			entries[i].State = StateUsed
		}
	}
}

func inspect(base layout.Base, d zfs.Dataset) Entry {
	st := classify(base, d)
	e := Entry{Dataset: d.Name, State: st.state, Used: d.Used, Refer: d.Refer, Since: d.Created, Problem: st.problem}
	e.Foreign = foreignSnapshots(d)
	e.Parent, _, _ = strings.Cut(d.Origin, "@")
	for _, r := range st.records {
		e.Records = append(e.Records, r.info)
		e.StandInFor = r.standInFor
	}
	if _, isTemplate := base.ParseTemplate(d.Name); isTemplate {
		from := readProvenance(d)
		e.DiffID, e.Blob = from.diffID, from.blob
	}
	if e.State == StateCached {
		e.Since = lastUsed(d)
	}
	return e
}

// Nodes are the datasets of an inspection as a plan of a sweep sees them.
func Nodes(entries []Entry) []space.Node {
	var nodes []space.Node
	for _, e := range entries {
		nodes = append(nodes, space.Node{
			Dataset: e.Dataset, Origin: e.Parent, Bytes: e.Used,
			Destroy: e.State == StateGarbage && len(e.Foreign) == 0,
			Cached:  e.State == StateCached && len(e.Foreign) == 0, LastUsed: e.Since,
		})
	}
	return nodes
}
