package machine

import (
	"bytes"
	"io"
	"regexp"
)

// maxMatchLine limits how much of a line is looked at.
const maxMatchLine = 64 << 10

// lineMatcher passes on what is written and calls found, once, as soon as a
// line is complete that matches.
type lineMatcher struct {
	to      io.Writer
	pattern *regexp.Regexp
	found   func(line string)
	partial []byte
}

func (m *lineMatcher) Write(p []byte) (int, error) {
	n, err := m.to.Write(p)
	if m.pattern == nil {
		return n, err
	}
	m.partial = append(m.partial, p...)
	for {
		line, rest, complete := bytes.Cut(m.partial, []byte("\n"))
		if !complete && len(m.partial) < maxMatchLine {
			return n, err
		}
		if m.pattern.Match(line) {
			m.pattern = nil
			m.found(string(line))
			return n, err
		}
		m.partial = append(m.partial[:0], rest...)
	}
}
