//go:build linux

package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNarrator(t *testing.T) {
	var out bytes.Buffer
	n := newNarrator(&out, "/tmp/tour")
	n.command("ctr", "--address", "/tmp/tour/c.sock", "run", "it's", "", "a\nb")
	n.quote("one\n\ntwo ")
	require.Equal(t, `    $ ctr --address $D/c.sock run 'it'\''s' '' 'a
      b'
    | one
    |
    | two
`, out.String())
}

func TestNarratorKeepsADirectoryThatNeedsQuotes(t *testing.T) {
	var out bytes.Buffer
	newNarrator(&out, "/tmp/a tour").command("ls", "/tmp/a tour/x")
	require.Equal(t, "    $ ls '/tmp/a tour/x'\n", out.String())
}

func TestLines(t *testing.T) {
	var got []string
	l := &lines{each: func(s string) { got = append(got, s) }}
	for _, part := range []string{"a", "b\nc\n", "", "\nd"} {
		n, err := l.Write([]byte(part))
		require.NoError(t, err)
		require.Equal(t, len(part), n)
	}
	l.flush()
	l.flush()
	require.Equal(t, []string{"ab\n", "c\n", "\n", "d"}, got)
}
