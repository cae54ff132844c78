//go:build linux

package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// A mounted is a line of mountinfo.
type mounted struct {
	point, fstype, source string
}

// mounts are the mounts below a directory and those of a pool, deepest last.
func mounts(dir, pool string) ([]mounted, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(parseMounts(string(content)), func(m mounted) bool {
		inside := m.point == dir || strings.HasPrefix(m.point, dir+"/")
		ours := m.fstype == "zfs" && (m.source == pool || strings.HasPrefix(m.source, pool+"/"))
		return !inside && !ours
	}), nil
}

// parseMounts reads /proc/self/mountinfo, see proc_pid_mountinfo(5).
func parseMounts(text string) []mounted {
	var found []mounted
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		separator := slices.Index(fields, "-")
		if separator < 5 || separator+2 >= len(fields) {
			continue
		}
		found = append(found, mounted{
			point:  unescape(fields[4]),
			fstype: fields[separator+1],
			source: unescape(fields[separator+2]),
		})
	}
	return found
}

// unescape undoes the octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
