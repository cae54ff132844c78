package layout

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// chain is a chain ID made of one hexadecimal digit.
func chain(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

func base(t testing.TB, name string) Base {
	t.Helper()
	b, err := ParseBase(name)
	require.NoError(t, err)
	return b
}

// requireLegal holds a dataset name to what the kernel allows, written down
// here a second time from zfs_namecheck.c: 255 bytes with the snapshot behind
// it, fewer than 50 levels, components of letters, digits and -_.: that are
// neither empty nor "." nor "..".
func requireLegal(t testing.TB, b Base, dataset string) {
	t.Helper()
	wrong := func(what string) { t.Fatalf("dataset %q: %s", dataset, what) }
	if !strings.HasPrefix(dataset, b.String()+"/") {
		wrong("is not below " + b.String())
	}
	if len(dataset+"@"+Extracted) >= 256 || strings.Count(dataset, "/") >= 50 {
		wrong("is too long or too deep for its snapshot")
	}
	for _, component := range strings.Split(dataset, "/") {
		switch {
		case component == "", component == ".", component == "..":
			wrong("has a component that is none")
		case component[0] == '-':
			wrong("reads as an option")
		case strings.Trim(component, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") != "":
			wrong("has a character that ZFS refuses")
		}
	}
}
