package result

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Fact says something about where or how it was measured.
type Fact struct{ Key, Value string }

// Emulated is the fact "machine" where the processors are software.
const Emulated = "emulated (QEMU, TCG)"

// Set is one run's measurements.
type Set struct {
	Facts   []Fact
	samples map[Case][]float64
}

// Read reads a run's measurements. Lines that are neither a fact nor a sample
// are left out, as benchstat does.
func Read(r io.Reader) (*Set, error) {
	s := &Set{samples: make(map[Case][]float64)}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "Benchmark") {
			sample, err := parseSample(line)
			if err != nil {
				return nil, err
			}
			s.Add(sample)
			continue
		}
		key, value, found := strings.Cut(line, ": ")
		if found && isKey(key) {
			s.Facts = append(s.Facts, Fact{key, value})
		}
	}
	return s, lines.Err()
}

// isKey reports whether a text is a key of the format: one word in lower
// case.
func isKey(text string) bool {
	return text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz-") == ""
}

// Merge adds another run's samples, and those facts that are not there yet. One that
// is there and says something else is added as "<part>-<key>".
func (s *Set) Merge(other *Set, part string) {
	known := make(map[string]string)
	for _, f := range s.Facts {
		known[f.Key] = f.Value
	}
	for _, f := range other.Facts {
		switch have, ok := known[f.Key]; {
		case !ok:
			s.Facts = append(s.Facts, f)
		case have != f.Value:
			s.Facts = append(s.Facts, Fact{part + "-" + f.Key, f.Value})
		}
	}
	for c, values := range other.samples {
		s.samples[c] = append(s.samples[c], values...)
	}
}

// Add adds a sample.
func (s *Set) Add(sample Sample) {
	s.samples[sample.Case] = append(s.samples[sample.Case], sample.Value)
}

// Fact returns a fact's value, the last of those with the key, or "".
func (s *Set) Fact(key string) string {
	for i := len(s.Facts) - 1; i >= 0; i-- {
		if s.Facts[i].Key == key {
			return s.Facts[i].Value
		}
	}
	return ""
}

// Cases are those there are samples of, in no order.
func (s *Set) Cases() []Case {
	var cases []Case
	for c := range s.samples {
		cases = append(cases, c)
	}
	return cases
}

// Summary is what is typical of the samples of a case; false where there are
// none.
func (s *Set) Summary(c Case) (Summary, bool) {
	values := s.samples[c]
	if len(values) == 0 {
		return Summary{}, false
	}
	return Summarize(values), true
}

// WriteFacts writes the head of a run.
func WriteFacts(w io.Writer, facts []Fact) error {
	for _, f := range facts {
		if _, err := fmt.Fprintf(w, "%s: %s\n", f.Key, strings.Join(strings.Fields(f.Value), " ")); err != nil {
			return err
		}
	}
	return nil
}
