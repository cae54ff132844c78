package main

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
)

// The lanes of a stage run side by side: each waits for what the other does. The steps of a
// lane run one after the other, also after one that failed.
func TestLanes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	meet := func(own, other string) step {
		script := fmt.Sprintf("touch %s; until [ -e %s ]; do sleep 0.01; done; exit 1", filepath.Join(dir, own), filepath.Join(dir, other))
		return step{name: own, args: []string{"sh", "-c", script}}
	}
	next := step{name: "next", args: []string{"test", "-e", filepath.Join(dir, "first")}}
	results := runStage(context.Background(), stage{{meet("first", "second"), next}, {meet("second", "first")}}, options{out: dir})
	var names []string
	for _, r := range results {
		names = append(names, fmt.Sprint(r.name, " ", r.err))
	}
	const want = "[first exit status 1 next <nil> second exit status 1]"
	if got := fmt.Sprint(names); got != want {
		t.Errorf("ran %s, want %s", got, want)
	}
}

// What is chosen by name is run, and no lane or stage is empty. A run that chooses nothing
// has all steps: each release of ZFS has its machines in one lane.
func TestStagesAreChosenByName(t *testing.T) {
	t.Setenv("ZFSTPL_TEST_HOST", "")
	count := func(only string) (lanes, steps int) {
		for _, s := range stages(options{only: only, long: true}) {
			for _, l := range s {
				lanes, steps = lanes+1, steps+len(l)
			}
		}
		return lanes, steps
	}
	for only, want := range map[string][2]int{"": {6, 14}, "unit": {1, 1}, "2.3": {1, 5}, "integration": {2, 2}, "none": {0, 0}} {
		if lanes, steps := count(only); lanes != want[0] || steps != want[1] {
			t.Errorf("%q: %d lanes of %d steps, want %v", only, lanes, steps, want)
		}
	}
}
