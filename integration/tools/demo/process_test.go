//go:build linux

package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseStat(t *testing.T) {
	p, ok := parseStat([]byte("12 (a) b (c)) S 7 1 1 0"))
	require.True(t, ok)
	require.Equal(t, process{pid: 12, parent: 7, name: "a) b (c)", state: 'S'}, p)
	for _, wrong := range []string{"", "12 a S 7", "x (a) S 7 1", "12 (a)", "12 )a( S 7"} {
		_, ok := parseStat([]byte(wrong))
		require.False(t, ok, wrong)
	}
}

func TestBelow(t *testing.T) {
	table := []process{{pid: 5, parent: 4}, {pid: 4, parent: 3}, {pid: 3, parent: 1}, {pid: 6, parent: 1}, {pid: 7, parent: 3}}
	var pids []int
	for _, p := range below(3, table) {
		pids = append(pids, p.pid)
	}
	require.Equal(t, []int{4, 7, 5}, pids)
	require.Empty(t, below(99, table))
}

func TestParseMounts(t *testing.T) {
	const text = `22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:44 / /tmp/a\040b rw shared:5 master:1 - zfs pool/x\011y rw,xattr
41 22 0:45 / /tmp/\134 rw - tmpfs none rw
nonsense
`
	require.Equal(t, []mounted{
		{"/", "ext4", "/dev/vda"},
		{"/tmp/a b", "zfs", "pool/x\ty"},
		{`/tmp/\`, "tmpfs", "none"},
	}, parseMounts(text))
}

func TestMountsFindsOnlyOurs(t *testing.T) {
	all, err := mounts("/", "none")
	require.NoError(t, err)
	require.NotEmpty(t, all)
	none, err := mounts("/no/such/directory", "no-such-pool")
	require.NoError(t, err)
	require.Empty(t, none)
}
