//go:build linux

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// summarize tells a newcomer what has happened.
func (t *tour) summarize(took time.Duration) {
	t.line("\n==> What happened")
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, f := range t.finished {
		fmt.Fprintf(w, "%s\t %s\n", seconds(f.took), f.title)
	}
	fmt.Fprintf(w, "%s\t in all\n", seconds(took))
	w.Flush()
	t.say("%s", strings.ReplaceAll(strings.TrimRight(b.String(), "\n"), "\n", "\n    "))
	if t.rehearse {
		t.line("\n    A rehearsal: overlayfs stood in for zfstpl, and no ZFS was touched.")
		return
	}
	t.line("\n%s", indent(t.space.story()))
}

// story explains the figures.
func (s space) story() string {
	own, copies := s.total()
	var largest int64
	for _, clone := range s.containers {
		largest = max(largest, clone.own)
	}
	return fmt.Sprintf(`An image of several layers was pulled: each became a template, a ZFS dataset
that is a clone of the layer below it. Containers got clones of the top template
as their roots: nothing was copied, and none of them owned more than %s.
What one container changed became a layer, an image and a template of its own.

%d templates and %d containers took %s of the pool. As separate copies, each
complete for itself, they would take %s: %.1f times as much.

When everything was removed the templates stayed cached. The next pull fetched the
layers, so that the image can be pushed again, and unpacked none of them. At the
end the templates went too; the pool was empty, then gone.`,
		mebibytes(largest), len(s.templates), len(s.containers), mebibytes(own), mebibytes(copies),
		float64(copies)/float64(max(own, 1)))
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(text, "\n", "\n    ")
}
