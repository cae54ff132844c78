//go:build linux

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseOutput(t *testing.T) {
	const right = `python 3.13.5
primes below 20000: 2262, the last 19997
pi: 3.14159265358979323846264338327950288419716939937510
words: 28 in 7 files
`
	got, err := parseOutput(right)
	require.NoError(t, err)
	require.Equal(t, computed{files: 7, words: 28}, got)
	for _, wrong := range []string{"", right + "more\n", strings.Replace(right, "2262", "2261", 1), strings.TrimSpace(right)} {
		_, err := parseOutput(wrong)
		require.Error(t, err, wrong)
	}
}
