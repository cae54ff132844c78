//go:build linux

package manifest

import (
	"fmt"
	"maps"
	"slices"
)

// Compare says in what got deviates from want, a line per path, sorted by
// path. Nil means that they agree.
func Compare(want, got []Entry) []string {
	wanted, have := byPath(want), byPath(got)
	paths := maps.Clone(wanted)
	maps.Copy(paths, have)
	var differences []string
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		w, expected := wanted[path]
		g, found := have[path]
		switch {
		case !found:
			differences = append(differences, fmt.Sprintf("%q is missing", path))
		case !expected:
			differences = append(differences, fmt.Sprintf("%q should not be there: %s", path, g.Type))
		case w != g:
			differences = append(differences, fmt.Sprintf("%q: want %+v, got %+v", path, w, g))
		}
	}
	return differences
}

func byPath(entries []Entry) map[string]Entry {
	m := make(map[string]Entry, len(entries))
	for _, e := range entries {
		m[e.Path] = e
	}
	return m
}
