package inspect

import (
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// Accounts has the bytes under a base by their use. Templates, Containers, Cached, Garbage
// and Other add up to all bytes.
type Accounts struct {
	Images []ImageAccount `json:"images"`
	// Templates has the bytes of all templates with records.
	Templates  uint64 `json:"templates"`
	Containers uint64 `json:"containers"`
	Cached     uint64 `json:"cached"`
	Garbage    uint64 `json:"garbage"`
	Other      uint64 `json:"other"` // partial and foreign datasets
	// Reclaimable has the bytes of everything that can be destroyed: garbage, and cached
	// templates without clones in use.
	Reclaimable uint64 `json:"reclaimable"`
}

// ImageAccount describes a committed snapshot without committed children, together with
// its parents. A snapshotter does not know the names of images; this is its view of one.
type ImageAccount struct {
	Dataset    string   `json:"dataset"`
	Namespaces []string `json:"namespaces"`
	Unique     uint64   `json:"unique"` // bytes of layers that belong to this image only
	Shared     uint64   `json:"shared"` // bytes of layers that other images have too
	Containers int      `json:"containers"`
}

// Account computes the accounts of an inspection. It is a pure function.
func Account(entries []Entry) Accounts {
	a := Accounts{Images: []ImageAccount{}}
	byName, hasChild := make(map[string]Entry), make(map[string]bool)
	for _, e := range entries {
		byName[e.Dataset] = e
		if e.committed() {
			hasChild[e.Parent] = true
		}
		a.add(e)
	}
	var chains [][]Entry           // of the images
	images := make(map[string]int) // number of images by template
	for _, e := range entries {
		if !e.committed() || hasChild[e.Dataset] {
			continue
		}
		chains = append(chains, chainOf(byName, e))
		for _, layer := range chains[len(chains)-1] {
			images[layer.Dataset]++
		}
	}
	for _, chain := range chains {
		a.Images = append(a.Images, account(chain, images, entries))
	}
	slices.SortFunc(a.Images, func(a, b ImageAccount) int { return strings.Compare(a.Dataset, b.Dataset) })
	a.Reclaimable = space.NewPlan(Nodes(entries), nil, space.Policy{Keep: space.Forever, All: true}, time.Time{}).Bytes
	return a
}

// add adds the bytes of a dataset.
func (a *Accounts) add(e Entry) {
	switch {
	case e.State == Cached:
		a.Cached += e.Used
	case e.State == Garbage:
		a.Garbage += e.Used
	case e.State == Used && e.active():
		a.Containers += e.Used
	case e.State == Used:
		a.Templates += e.Used
	default:
		a.Other += e.Used
	}
}

// has reports whether a dataset has a record of a kind.
func (e Entry) has(kind snapshots.Kind) bool {
	return slices.ContainsFunc(e.Records, func(i snapshots.Info) bool { return i.Kind == kind })
}

func (e Entry) committed() bool { return e.has(snapshots.KindCommitted) }
func (e Entry) active() bool    { return e.has(snapshots.KindActive) }

// chainOf returns a template and the chain of its parents.
func chainOf(byName map[string]Entry, e Entry) []Entry {
	chain := []Entry{e}
	for len(chain) <= len(byName) { // ends also if the origins form a cycle
		parent, ok := byName[e.Parent]
		if !ok {
			break
		}
		chain, e = append(chain, parent), parent
	}
	return chain
}

// account returns the account of the image with a chain of layers, the last layer first.
func account(chain []Entry, images map[string]int, all []Entry) ImageAccount {
	top := chain[0]
	a := ImageAccount{Dataset: top.Dataset}
	for _, r := range top.Records {
		if r.Kind == snapshots.KindCommitted {
			a.Namespaces = append(a.Namespaces, layout.Namespace(r.Name))
		}
	}
	slices.Sort(a.Namespaces)
	a.Namespaces = slices.Compact(a.Namespaces)
	for _, layer := range chain {
		if images[layer.Dataset] > 1 {
			a.Shared += layer.Used
		} else {
			a.Unique += layer.Used
		}
	}
	for _, e := range all {
		if e.Parent == top.Dataset && e.active() {
			a.Containers++
		}
	}
	return a
}
