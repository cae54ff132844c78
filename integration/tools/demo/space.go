//go:build linux

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A usage is one dataset's share of the pool.
type usage struct {
	name string
	// own is what it alone holds, sees what its mount shows.
	own, sees int64
}

// space is what the tour's templates and clones cost.
type space struct {
	templates, containers []usage
	// leftovers are the clones that layers were unpacked into: they own next to
	// nothing once their template is made, and wait for containerd's next
	// garbage collection.
	leftovers []usage
}

// cloneLimit is what a container that changed a few small files may own.
const cloneLimit = 8 << 20

func (t *tour) showSharing(ctx context.Context) error {
	if err := t.showTree(ctx); err != nil {
		return err
	}
	out, err := t.ask(ctx, "zfs", "list", "-Hp", "-r", "-t", "filesystem", "-s", "createtxg", "-o", "name,used,referenced", t.dataset())
	if err != nil {
		return err
	}
	all, err := parseUsages(out)
	if err != nil {
		return err
	}
	t.space = sortUsages(all, t.dataset(), t.empty)
	t.quote(t.space.table())
	for _, clone := range t.space.containers {
		if clone.own > cloneLimit {
			return fmt.Errorf("%s holds %s of its own: that is no clone", clone.name, mebibytes(clone.own))
		}
	}
	return nil
}

// parseUsages reads the columns name, used and referenced.
func parseUsages(out string) ([]usage, error) {
	var usages []usage
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(fields) != 3 {
			return nil, fmt.Errorf("zfs list printed %q", line)
		}
		own, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return nil, err
		}
		sees, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return nil, err
		}
		usages = append(usages, usage{fields[0], own, sees})
	}
	return usages, nil
}

// sortUsages tells templates and clones apart and leaves out what has been
// there before the first image.
func sortUsages(all []usage, base string, before []string) space {
	var s space
	known := map[string]bool{}
	for _, name := range before {
		known[name] = true
	}
	for _, u := range all {
		name, inside := strings.CutPrefix(u.name, base+"/")
		if !inside || known[u.name] {
			continue
		}
		kind, rest, _ := strings.Cut(name, "/")
		u.name = rest
		switch {
		case kind == "storage":
			s.templates = append(s.templates, u)
		case strings.HasPrefix(rest, "extract-"):
			s.leftovers = append(s.leftovers, u)
		default:
			s.containers = append(s.containers, u)
		}
	}
	return s
}

// total adds up what templates and containers hold together and what they would
// hold as copies.
func (s space) total() (own, copies int64) {
	for _, list := range [][]usage{s.templates, s.containers} {
		for _, u := range list {
			own += u.own
			copies += u.sees
		}
	}
	return own, copies
}

func (s space) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "own\tsees\t\t")
	for _, kind := range []struct {
		name string
		list []usage
	}{{"template", s.templates}, {"container", s.containers}} {
		for _, u := range kind.list {
			fmt.Fprintf(w, "%s\t%s\t%s\t %s\n", mebibytes(u.own), mebibytes(u.sees), kind.name, shorten(u.name))
		}
	}
	own, copies := s.total()
	fmt.Fprintf(w, "%s\t%s\ttogether\t \n", mebibytes(own), mebibytes(copies))
	w.Flush()
	return b.String()
}

// shorten cuts a digest as people do.
func shorten(name string) string {
	if algorithm, hash, found := strings.Cut(name, ":"); found && len(hash) == 64 {
		return algorithm + ":" + hash[:12]
	}
	return name
}
