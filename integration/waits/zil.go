package waits

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// kstats is where the module has the counters of its pools.
const kstats = "/proc/spl/kstat/zfs"

// commits has the ZIL commits of each mounted dataset, by the name of its counters: a dataset
// that is destroyed and created again has others.
type commits map[string]datasetCommits

type datasetCommits struct {
	dataset string
	count   int
}

// readCommits returns the counters of a pool in dir. They exist while a dataset is mounted,
// and begin with 0 at its mount.
func readCommits(dir string) (commits, error) {
	files, err := filepath.Glob(filepath.Join(dir, "objset-*"))
	if err != nil {
		return nil, err
	}
	found := make(commits)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // unmounted meanwhile
		}
		if err != nil {
			return nil, err
		}
		one, err := parseCommits(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		found[filepath.Base(file)] = one
	}
	return found, nil
}

// parseCommits parses the counters of a dataset: lines of a name, a type and a value.
func parseCommits(text string) (c datasetCommits, err error) {
	c.count = -1
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		_, value, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
		value = strings.TrimLeft(value, " ")
		switch name {
		case "dataset_name":
			c.dataset = value
		case "zil_commit_count":
			if c.count, err = strconv.Atoi(value); err != nil {
				return c, err
			}
		}
	}
	if c.dataset == "" || c.count < 0 {
		return c, errors.New("has no dataset_name or no zil_commit_count")
	}
	return c, nil
}

// since adds to counts what was committed between before and now.
func (now commits) since(before commits, counts *Counts) {
	counts.Commits = make(map[string]int)
	for file, n := range now {
		if made := n.count - before[file].count; made != 0 {
			counts.Commits[n.dataset] += made
			counts.ZIL += made
		}
	}
	for file, b := range before {
		if _, ok := now[file]; !ok {
			counts.Gone = append(counts.Gone, b.dataset)
		}
	}
	slices.Sort(counts.Gone)
}
