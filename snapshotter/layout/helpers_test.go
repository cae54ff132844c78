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
	require.True(t, strings.HasPrefix(dataset, b.String()+"/"), "%q is not below %q", dataset, b)
	require.Less(t, len(dataset+"@"+Extracted), 256, "%q with its snapshot", dataset)
	require.Less(t, strings.Count(dataset, "/"), 50, "%q", dataset)
	for _, component := range strings.Split(dataset, "/") {
		require.NotContains(t, []string{"", ".", ".."}, component, "%q", dataset)
		require.NotEqual(t, byte('-'), component[0], "%q reads as an option", dataset)
		stripped := strings.Trim(component, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")
		require.Empty(t, stripped, "%q has a character ZFS refuses", dataset)
	}
}
