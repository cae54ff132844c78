package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "show templates and runtimes as a tree",
		Description: "USED is the space that only this dataset holds, REFER the space of its whole\n" +
			"content, both as ZFS accounts them. OWNER is the containerd snapshot. The command\n" +
			"reads the pool and changes nothing; it needs no daemon.",
		Flags: []cli.Flag{configFlag, datasetFlag,
			&cli.BoolFlag{Name: "json", Usage: "print one JSON array instead of the tree"},
			&cli.BoolFlag{Name: "full", Usage: "do not shorten chain IDs and names"}},
		Before: noArguments,
		Action: ls,
	}
}

func ls(c *cli.Context) error {
	base, pool, entries, incomplete, err := inspectBase(c)
	if err != nil {
		return err
	}
	defer pool.Close()
	warnIncomplete(c, incomplete)
	if c.Bool("json") {
		enc := json.NewEncoder(c.App.Writer)
		enc.SetIndent("", "  ")
		return enc.Encode(entries)
	}
	return tree{full: c.Bool("full")}.print(c.App.Writer, base.String(), entries)
}

// tree prints each dataset below the template that it is a clone of.
type tree struct {
	full bool // chain IDs and names of snapshots in full
	now  func() time.Time
}

func (t tree) print(w io.Writer, base string, entries []inspect.Entry) error {
	clones := make(map[string][]inspect.Entry)
	known := make(map[string]bool)
	for _, e := range entries {
		known[e.Dataset] = true
	}
	var total uint64
	for _, e := range entries {
		total += e.Used
		if !known[e.Parent] {
			e.Parent = ""
		}
		clones[e.Parent] = append(clones[e.Parent], e)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "%s\tUSED\tREFER\tOWNER\n", base)
	t.level(tw, clones, "", "")
	fmt.Fprintf(tw, "%d datasets\t%s\t\t\n", len(entries), size(total))
	return tw.Flush()
}

// stateOrder is the order in which siblings are shown.
var stateOrder = []inspect.State{
	inspect.Foreign, inspect.Partial, inspect.Garbage, inspect.Used, inspect.Ready, inspect.Cached,
}

func (t tree) level(w io.Writer, clones map[string][]inspect.Entry, parent, indent string) {
	entries := clones[parent]
	slices.SortFunc(entries, func(a, b inspect.Entry) int {
		return cmp.Or(cmp.Compare(slices.Index(stateOrder, a.State), slices.Index(stateOrder, b.State)), strings.Compare(a.Dataset, b.Dataset))
	})
	for i, e := range entries {
		branch, below := "├─ ", "│  "
		if i == len(entries)-1 {
			branch, below = "└─ ", "   "
		}
		if parent == "" {
			branch, below = "", ""
		}
		fmt.Fprintf(w, "%s%s%s\t%s\t%s\t%s\n", indent, branch, t.name(e.Dataset), size(e.Used), size(e.Refer), t.owner(e))
		t.level(w, clones, e.Dataset, indent+below)
	}
}

// name returns the last component of a dataset's name. It shortens a chain ID to the
// digits that other tools show.
func (t tree) name(dataset string) string {
	name := dataset[strings.LastIndexByte(dataset, '/')+1:]
	if layout.IsChainID(name) && !t.full {
		return name[:len("sha256:")+12] + "…"
	}
	return name
}

// owner returns the text of column OWNER: the snapshots of a dataset, its state, or why
// it is skipped.
func (t tree) owner(e inspect.Entry) string {
	if e.Problem != "" {
		return "skipped: " + printable(strings.ReplaceAll(e.Problem, "\n", "; "), 0)
	}
	kept := ""
	if len(e.Foreign) > 0 {
		names := strings.ReplaceAll(strings.Join(e.Foreign, ", "), e.Dataset+"@", "")
		kept = ", kept by snapshots: " + printable(names, 0)
	}
	switch {
	case e.State == inspect.Cached:
		return fmt.Sprintf("cached, unused for %s%s", t.since(e.Since), kept)
	case e.State == inspect.Garbage && kept != "":
		return "garbage" + kept
	case e.State == inspect.Garbage:
		return "garbage, destroyed by the next cleanup"
	case e.State == inspect.Ready:
		return "ready, for the next container"
	case e.State == inspect.Partial:
		return "partial, left by a crash"
	case e.State == inspect.Foreign:
		return "foreign"
	case len(e.Records) == 0 && strings.HasSuffix(e.Dataset, "/empty"):
		return "base layer"
	case len(e.Records) == 0:
		return "pull in progress"
	}
	owners := strings.Join(t.owners(e.Records), ", ")
	if e.StandInFor != "" {
		owners += ", stand-in"
	}
	return owners
}

func (t tree) since(when time.Time) string {
	now := time.Now
	if t.now != nil {
		now = t.now
	}
	return units.HumanDuration(now().Sub(when))
}

// maxName is the number of characters that are shown of a client's name. Containers of
// Kubernetes and Docker have 64 digits.
const maxName = 80

// owners returns the namespaces of the image layers among records, and the names of the
// other snapshots.
func (t tree) owners(records []snapshots.Info) []string {
	shown := maxName
	if t.full {
		shown = 0
	}
	found := make(map[string]bool)
	for _, r := range records {
		client := layout.ClientName(r.Name)
		ns, where := printable(layout.Namespace(r.Name), shown), ""
		if ns != "" {
			where = ns + "/"
		}
		switch {
		case r.Kind == snapshots.KindView:
			found["view "+where+printable(client, shown)] = true
		case r.Kind == snapshots.KindActive:
			found["active "+where+printable(client, shown)] = true
		case layout.IsChainID(client) && ns != "":
			found["image layer in "+ns] = true
		case layout.IsChainID(client):
			found["image layer"] = true
		default:
			found["snapshot "+where+printable(client, shown)] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// printable replaces the control characters of a client's text and cuts it to a number
// of characters; 0 is no limit.
func printable(s string, shown int) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
	if runes := []rune(clean); shown > 0 && len(runes) > shown {
		clean = string(runes[:shown-1]) + "…"
	}
	return clean
}

func size(bytes uint64) string { return units.BytesSize(float64(bytes)) }
