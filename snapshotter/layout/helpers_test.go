package layout

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// chain returns a chain ID of one repeated hexadecimal digit.
func chain(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

func base(t testing.TB, name string) Base {
	t.Helper()
	b, err := ParseBase(name)
	require.NoError(t, err)
	return b
}

// requireLegal checks a dataset name against the rules of the kernel, independently of
// the package, from zfs_namecheck.c: 255 bytes with the snapshot, fewer than 50
// levels, and components of letters, digits and -_.: that are not empty, "." or "..".
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
			wrong("has an empty component or a dot component")
		case component[0] == '-':
			wrong("looks like an option")
		case strings.Trim(component, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") != "":
			wrong("has a character that ZFS refuses")
		}
	}
}

// IsZero reports whether t is the zero value.
func (t Template) IsZero() bool { return t.dataset == "" }
