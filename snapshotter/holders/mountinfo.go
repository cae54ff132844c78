package holders

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxMountinfo bounds how much is read of one file, in bytes: about 100,000 mounts.
const maxMountinfo = 16 << 20

func readBounded(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit))
}

// parseMounts returns the mounts of wanted ZFS datasets. It reads lines of the form
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
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				c = byte(n)
				i += 3
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}
