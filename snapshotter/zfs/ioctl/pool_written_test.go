//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"os"
	"syscall"
	"testing"
)

// The bytes written since the origin, and since an origin further back, are those that
// the dataset alone uses.
func TestPoolWrittenSinceAnyOrigin(t *testing.T) {
	h, pool := openOn(t, 128<<20)
	ctx := t.Context()
	origin := template(t, h, pool+"/t")
	clone := pool + "/c"
	must(t, h.Clone(ctx, origin, clone, map[string]string{"mountpoint": "legacy", "compression": "off"}))
	bytes, err := h.Written(ctx, clone, origin)
	must(t, err)
	if bytes != 0 {
		t.Errorf("a new clone has %d written bytes", bytes)
	}
	dir := mount(t, clone)
	must(t, os.WriteFile(dir+"/file", make([]byte, 1<<20), 0o600))
	must(t, h.Sync(ctx, pool))
	bytes, err = h.Written(ctx, clone, origin)
	must(t, err)
	d, err := h.Stat(ctx, clone)
	must(t, err)
	if bytes < 1<<20 || bytes != d.Used {
		t.Errorf("%d bytes written, %d used", bytes, d.Used)
	}
	must(t, h.Snapshots(ctx, []string{clone + "@x"}, nil))
	must(t, h.Clone(ctx, clone+"@x", pool+"/further", nil))
	far, err := h.Written(ctx, pool+"/further", origin)
	must(t, err)
	if far != bytes {
		t.Errorf("%d bytes written since the origin's origin, not %d", far, bytes)
	}
	for _, c := range []struct {
		name, since string
		errno       syscall.Errno
	}{
		{pool + "/none", origin, syscall.ENOENT},
		{clone, pool + "/t@none", syscall.ENOENT},
		{pool + "/t", clone + "@x", syscall.EINVAL},
	} {
		_, err := h.Written(ctx, c.name, c.since)
		want(t, err, c.errno)
	}
}
