package snapshotter

import (
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// Accounts is what holds the bytes under a base. Images, containers, warm ones,
// trash and others are all there is.
type Accounts struct {
	Images []ImageAccount `json:"images"`
	// Templates are the bytes of all templates that records name.
	Templates  uint64 `json:"templates"`
	Containers uint64 `json:"containers"`
	Cached     uint64 `json:"cached"`
	Garbage    uint64 `json:"garbage"`
	Other      uint64 `json:"other"` // remains of crashes, and what is not ours
	// Reclaimable is what comes back if everything goes that can: trash, and warm
	// templates on which nothing stands.
	Reclaimable uint64 `json:"reclaimable"`
}

// ImageAccount is a committed snapshot on which no other stands, with all it
// stands on: what an image is to a snapshotter, which hears of no names.
type ImageAccount struct {
	Dataset    string   `json:"dataset"`
	Namespaces []string `json:"namespaces"`
	Unique     uint64   `json:"unique"` // bytes of layers that no other image has
	Shared     uint64   `json:"shared"` // bytes of layers that another has too
	Containers int      `json:"containers"`
}

// Account adds up an inspection. It is pure.
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
	images := make(map[string]int) // that a template is part of
	for _, e := range entries {
		if e.committed() && !hasChild[e.Dataset] {
			for _, layer := range chainOf(byName, e) {
				images[layer.Dataset]++
			}
		}
	}
	for _, e := range entries {
		if e.committed() && !hasChild[e.Dataset] {
			a.Images = append(a.Images, account(e, chainOf(byName, e), images, entries))
		}
	}
	slices.SortFunc(a.Images, func(a, b ImageAccount) int { return strings.Compare(a.Dataset, b.Dataset) })
	a.Reclaimable = space.PlanEvictions(Nodes(entries), nil, space.Policy{Keep: space.Forever, All: true}, time.Time{}).Bytes
	return a
}

func (a *Accounts) add(e Entry) {
	switch {
	case e.State == StateCached:
		a.Cached += e.Used
	case e.State == StateGarbage:
		a.Garbage += e.Used
	case e.State == StateUsed && e.active():
		a.Containers += e.Used
	case e.State == StateUsed:
		a.Templates += e.Used
	default:
		a.Other += e.Used
	}
}

func (e Entry) has(kind snapshots.Kind) bool {
	return slices.ContainsFunc(e.Records, func(i snapshots.Info) bool { return i.Kind == kind })
}

func (e Entry) committed() bool { return e.has(snapshots.KindCommitted) }
func (e Entry) active() bool    { return e.has(snapshots.KindActive) }

// chainOf is a template and those it stands on.
func chainOf(byName map[string]Entry, e Entry) []Entry {
	chain := []Entry{e}
	for len(chain) <= len(byName) { // whatever a stranger made of the origins
		parent, ok := byName[e.Parent]
		if !ok {
			break
		}
		chain, e = append(chain, parent), parent
	}
	return chain
}

func account(top Entry, chain []Entry, images map[string]int, all []Entry) ImageAccount {
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
