package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/zfstpl/zfstpl/snapshotter"
)

func TestProgressIsABarOrLines(t *testing.T) {
	t.Parallel()
	steps := []snapshotter.CleanupProgress{{Of: 0}, {Of: 60}, {Looked: 30, Of: 60, Destroyed: 29}, {Looked: 60, Of: 60, Destroyed: 59}}
	for what, c := range map[string]struct {
		p    *progress
		want string
	}{
		"a terminal": {&progress{terminal: true}, "\r\x1b[K[###############---------------] 30 of 60 datasets\r\x1b[K[##############################] 60 of 60 datasets\r\x1b[K"},
		"a log":      {&progress{}, "30 of 60 datasets\n"},
		"silent":     {&progress{terminal: true, silent: true}, ""},
	} {
		var b strings.Builder
		c.p.w = &b
		for _, s := range steps {
			if c.p.terminal || s.Looked == 30 {
				c.p.report(s)
			} else {
				c.p.now = s
			}
		}
		c.p.end()
		assert.True(t, strings.HasSuffix(b.String(), c.want), "%s: %q", what, b.String())
		assert.Contains(t, c.p.summary(), "59 datasets destroyed")
		assert.Contains(t, c.p.summary(), "1 could not be destroyed")
	}
}
