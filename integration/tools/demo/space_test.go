//go:build linux

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSpace(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	all, err := parseUsages(strings.Join([]string{
		"p/zfstpl\t100\t10", "p/zfstpl/storage\t100\t10", "p/zfstpl/runtime\t100\t10", "p/zfstpl/storage/empty\t1\t1",
		"p/zfstpl/storage/sha256:" + hash + "\t104857600\t104857600",
		"p/zfstpl/runtime/extract-0123-4567\t1\t104857600",
		"p/zfstpl/runtime/second-89ab\t1048576\t104857600",
	}, "\n") + "\n")
	require.NoError(t, err)
	s := sortUsages(all, "p/zfstpl", []string{"p/zfstpl/storage", "p/zfstpl/runtime", "p/zfstpl/storage/empty"})
	require.Len(t, s.templates, 1)
	require.Len(t, s.leftovers, 1)
	require.Equal(t, []usage{{"second-89ab", 1 << 20, 100 << 20}}, s.containers)
	own, copies := s.total()
	require.EqualValues(t, 101<<20, own)
	require.EqualValues(t, 200<<20, copies)
	require.Contains(t, s.table(), "template sha256:0123456789ab\n")
	require.Contains(t, s.table(), "101.00 MiB  200.00 MiB   together")
	require.Contains(t, s.story(), "1 templates and 1 containers took 101.00 MiB")

	for _, wrong := range []string{"a\t1\n", "a\tx\t1\n", "a\t1\tx\n"} {
		_, err := parseUsages(wrong)
		require.Error(t, err, wrong)
	}
}

func TestWithout(t *testing.T) {
	require.Equal(t, []string{"b"}, without([]string{"a", "b"}, []string{"a", "c"}))
}
