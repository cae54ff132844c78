package holders

import (
	"bytes"
	"io"
	"os"
	"strings"
)

// maxMountinfo bounds how much is read of one file, in bytes: about 100,000 mounts.
const maxMountinfo = 16 << 20

// readMounts returns the mounts of wanted ZFS datasets in a mountinfo file.
func readMounts(path string, wanted map[string]bool) ([]Mount, error) {
	text, err := readBounded(path, maxMountinfo)
	if err != nil {
		return nil, err
	}
	return parseMounts(text, wanted), nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit))
}

// parseMounts reads lines of the form
//
//	<id> <parent> <major:minor> <root> <mountpoint> <options> <tags>… - <type> <source> <options>
//
// and skips other lines.
func parseMounts(text []byte, wanted map[string]bool) []Mount {
	var mounts []Mount
	for line := range bytes.Lines(text) {
		front, back, ok := strings.Cut(string(line), " - ")
		left, right := strings.Fields(front), strings.Fields(back)
		if !ok || len(left) < 5 || len(right) < 2 || right[0] != "zfs" {
			continue
		}
		source := unescape(right[1])
		if dataset, _, _ := strings.Cut(source, "@"); wanted[dataset] {
			mounts = append(mounts, Mount{Source: source, Mountpoint: clean(unescape(left[4]))})
		}
	}
	return mounts
}

// unescape decodes the kernel's octal escapes, such as \040 for a space.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c, ok := octal(s[i:]); ok {
			b.WriteByte(c)
			i += 3
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// octal decodes a backslash and three octal digits at the beginning of s.
func octal(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' || s[1] > '3' {
		return 0, false
	}
	var c byte
	for _, digit := range []byte(s[1:4]) {
		if digit < '0' || digit > '7' {
			return 0, false
		}
		c = c<<3 | (digit - '0')
	}
	return c, true
}
