package zfs

import (
	"context"
	"fmt"
	"strings"
)

// Release is a release of OpenZFS. The zero value is older than every release.
type Release struct{ Major, Minor int }

// AtLeast reports whether the release is other or later.
func (r Release) AtLeast(other Release) bool {
	return r.Major > other.Major || r.Major == other.Major && r.Minor >= other.Minor
}

func (r Release) String() string { return fmt.Sprintf("%d.%d", r.Major, r.Minor) }

// Release returns the release of this machine's ZFS. If the commands and the kernel
// module differ, it returns the older one, because a property needs both.
func (c *Client) Release(ctx context.Context) (Release, error) {
	out, err := c.command().run(ctx, "version", c.pool, nil, "version")
	if err != nil {
		return Release{}, err
	}
	return releaseOf(c.pool, out)
}

// releaseOf parses the output of 'zfs version'. pool is for the error.
func releaseOf(pool string, out []byte) (Release, error) {
	var oldest Release
	for _, line := range strings.Fields(string(out)) {
		r, err := parseRelease(line)
		if err != nil {
			return Release{}, &Error{Op: "version", Dataset: pool, Detail: err.Error()}
		}
		if oldest == (Release{}) || oldest.AtLeast(r) {
			oldest = r
		}
	}
	if oldest == (Release{}) {
		return Release{}, &Error{Op: "version", Dataset: pool, Detail: fmt.Sprintf("unexpected output %q", out)}
	}
	return oldest, nil
}

// parseRelease parses a line of 'zfs version': "zfs-2.4.4-1" or "zfs-kmod-2.4.4-1".
func parseRelease(line string) (Release, error) {
	var r Release
	text := strings.TrimPrefix(strings.TrimPrefix(line, "zfs-"), "kmod-")
	if n, err := fmt.Sscanf(text, "%d.%d", &r.Major, &r.Minor); n != 2 || err != nil {
		return r, fmt.Errorf("%q is not a release", line)
	}
	return r, nil
}
