//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Lstat(path, &st))
	return st.Ino
}

// in reports whether an object is in one of the ranges.
func in(list []ObjectRange, object uint64, free bool) bool {
	for _, r := range list {
		if r.Free == free && r.First <= object && object <= r.Last {
			return true
		}
	}
	return false
}

func TestPoolDiffReturnsChangedObjects(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	must(t, h.Create(ctx, base+"/a", nil))
	dir := mount(t, base+"/a")
	write := func(name string) {
		must(t, os.MkdirAll(filepath.Dir(dir+"/"+name), 0o700))
		must(t, os.WriteFile(dir+"/"+name, []byte(name), 0o640))
	}
	odd := "d/ä b\n\t\\x"
	for _, name := range []string{"keep", "change", "removed", odd} {
		write(name)
	}
	must(t, h.Snapshots(ctx, []string{base + "/a@1"}, nil))
	must(t, h.Clone(ctx, base+"/a@1", base+"/c", nil))
	must(t, syscall.Unmount(dir, 0))
	must(t, syscall.Mount(base+"/c", dir, "zfs", 0, ""))
	removed := inode(t, dir+"/removed")
	write("change")
	write("new")
	must(t, os.Remove(dir+"/removed"))
	must(t, h.Snapshots(ctx, []string{base + "/c@2"}, nil))

	list, err := h.Diff(ctx, base+"/a@1", base+"/c@2") // through the origin
	must(t, err)
	for _, name := range []string{"", "change", "new"} {
		if !in(list, inode(t, dir+"/"+name), false) {
			t.Errorf("%q is not in %v", name, list)
		}
	}
	if !in(list, removed, true) {
		t.Errorf("the removed object is not in %v", list)
	}
	last := uint64(0)
	for i, r := range list {
		if r.First > r.Last || i > 0 && r.First <= last {
			t.Errorf("ranges are not in order: %v", list)
		}
		last = r.Last
	}
	if list, err := h.Diff(ctx, base+"/a@1", base+"/c@2"); err != nil || len(list) == 0 {
		t.Errorf("second call: got %v, %v", list, err)
	}

	_, err = h.Diff(ctx, base+"/c@2", base+"/a@1")
	want(t, err, syscall.EXDEV)
	_, err = h.Diff(ctx, base+"/a@1", base+"/a@1")
	want(t, err, syscall.EXDEV)
	_, err = h.Diff(ctx, base+"/a@1", base+"/c")
	want(t, err, syscall.EINVAL)
	_, err = h.Diff(ctx, base+"/a@none", base+"/c@2")
	want(t, err, syscall.ENOENT)

	o, err := h.Object(ctx, base+"/c@2", inode(t, dir+"/"+odd))
	must(t, err)
	if o.Path != "/"+odd || o.PathErr != nil || o.Mode != syscall.S_IFREG|0o640 || o.Links != 1 || o.Generation == 0 {
		t.Errorf("got %+v", o)
	}
	info, err := os.Lstat(dir + "/" + odd)
	must(t, err)
	stat := info.Sys().(*syscall.Stat_t)
	if o.Changed.Unix() != stat.Ctim.Sec || int64(o.Changed.Nanosecond()) != stat.Ctim.Nsec {
		t.Errorf("ctime is %v, lstat returns %v", o.Changed, stat.Ctim)
	}
	if o, err := h.Object(ctx, base+"/c", inode(t, dir)); err != nil || o.Path != "/" || o.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		t.Errorf("root is %+v, %v", o, err)
	}
	_, err = h.Object(ctx, base+"/c@2", removed)
	want(t, err, syscall.ENOENT)
	_, err = h.Object(ctx, base+"/c@2", 1) // the master node
	want(t, err, syscall.EOPNOTSUPP)

	var objects []string
	for object := uint64(0); ; {
		next, found, err := h.NextObject(ctx, base+"/c@2", object)
		must(t, err)
		if !found {
			break
		}
		if next <= object {
			t.Fatalf("%d comes after %d", next, object)
		}
		object = next
		if o, err := h.Object(ctx, base+"/c@2", object); err == nil && o.PathErr == nil {
			objects = append(objects, o.Path)
		}
	}
	for _, name := range []string{"/", "/keep", "/change", "/new", "/d", "/" + odd} {
		if !strings.Contains("\x00"+strings.Join(objects, "\x00")+"\x00", "\x00"+name+"\x00") {
			t.Errorf("%q is not among %q", name, objects)
		}
	}
	for _, beyond := range []uint64{1 << 40, 1 << 54, 1 << 56, 1 << 60, 1<<64 - 2, 1<<64 - 1} {
		if object, found, err := h.NextObject(ctx, base+"/c@2", beyond); found || err != nil {
			t.Errorf("after the last object, %d: %v, %v, %v", beyond, object, found, err)
		}
	}
	_, _, err = h.NextObject(ctx, base+"/none", 0)
	want(t, err, syscall.ENOENT)
}

// A file that was unlinked while it is open is still an object, without a path.
func TestPoolUnlinkedObjectHasNoPath(t *testing.T) {
	h, base := open(t)
	must(t, h.Create(t.Context(), base+"/a", nil))
	dir := mount(t, base+"/a")
	f, err := os.Create(dir + "/f")
	must(t, err)
	defer f.Close()
	object := inode(t, dir+"/f")
	must(t, os.Remove(dir+"/f"))
	must(t, h.Snapshots(t.Context(), []string{base + "/a@1"}, nil))
	o, err := h.Object(t.Context(), base+"/a@1", object)
	must(t, err)
	if o.Links != 0 || o.Generation == 0 || o.PathErr == nil || o.Path != "" {
		t.Errorf("got %+v", o)
	}
	t.Logf("path of an unlinked file: %v", o.PathErr)
}
