package result

import (
	"fmt"
	"strconv"
	"strings"
)

// Case is what samples are alike in.
type Case struct {
	// Operation is one word, as in "Prepare".
	Operation string
	// Clones is how many clones the template had, or snapshots the daemon.
	Clones int
	// Callers is how many asked at the same time.
	Callers int
	// On is the contender's name, as in "overlayfs-ext4".
	On string
}

// Units of samples.
const (
	Nanoseconds = "ns/op"
	Bytes       = "bytes"
	Txgs        = "txgs/op"
	ZILCommits  = "zil-commits/op"
)

// Sample is one measurement.
type Sample struct {
	Case
	Value float64
	Unit  string
}

// String is the sample as a line of the benchmark format, without its end.
func (s Sample) String() string {
	return fmt.Sprintf("Benchmark%s/clones=%d/callers=%d/on=%s 1 %s %s",
		s.Operation, s.Clones, s.Callers, s.On, strconv.FormatFloat(s.Value, 'f', -1, 64), s.Unit)
}

// parseSample reads what String wrote.
func parseSample(line string) (Sample, error) {
	bad := func(why string) (Sample, error) { return Sample{}, fmt.Errorf("line %q: %s", line, why) }
	fields := strings.Fields(line)
	if len(fields) != 4 || fields[1] != "1" {
		return bad("want a name, 1, a value and a unit")
	}
	value, err := strconv.ParseFloat(fields[2], 64)
	if err != nil {
		return bad("the value is no number")
	}
	parts := strings.Split(strings.TrimPrefix(fields[0], "Benchmark"), "/")
	s := Sample{Case: Case{Operation: parts[0]}, Value: value, Unit: fields[3]}
	for _, part := range parts[1:] {
		key, text, _ := strings.Cut(part, "=")
		switch key {
		case "clones":
			s.Clones, err = strconv.Atoi(text)
		case "callers":
			s.Callers, err = strconv.Atoi(text)
		case "on":
			s.On = text
		default:
			return bad("unknown key " + strconv.Quote(key))
		}
		if err != nil {
			return bad(key + " is no number")
		}
	}
	return s, nil
}
