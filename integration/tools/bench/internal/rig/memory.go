//go:build linux

package rig

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

// Memory is what a process has in memory, in bytes.
type Memory struct{ Resident, Peak float64 }

// Memory returns what the daemon has in memory now, and has had at most.
func (s *Service) Memory() (Memory, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", s.Pid()))
	if err != nil {
		return Memory{}, err
	}
	defer file.Close() // only read
	return parseMemory(file)
}

func parseMemory(r io.Reader) (Memory, error) {
	var m Memory
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		into := map[string]*float64{"VmRSS": &m.Resident, "VmHWM": &m.Peak}[name]
		if into == nil {
			continue
		}
		if _, err := fmt.Sscanf(rest, "%g kB", into); err != nil {
			return m, fmt.Errorf("%s: %w", lines.Text(), err)
		}
		*into *= 1 << 10
	}
	if m.Resident == 0 || m.Peak == 0 {
		return m, fmt.Errorf("the process's state has no VmRSS or VmHWM: %w", lines.Err())
	}
	return m, nil
}
