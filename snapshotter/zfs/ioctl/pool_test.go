//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// The tests in pool_*_test.go need ZFS, root, and a directory for the files of
// their pools:
//
//	CGO_ENABLED=0 go test -c -o ioctl.test ./snapshotter/zfs/ioctl
//	ZFSTPL_POOL_DIR=/var/tmp ./ioctl.test -test.v
//
// They create pools named zfstpltest<pid>…, destroy them, and touch no others.
const poolDirVariable = "ZFSTPL_POOL_DIR"

// sharedPool is the pool of most tests, or "" without ZFS.
var sharedPool string

func TestMain(m *testing.M) {
	if child := os.Getenv(childVariable); child != "" {
		os.Exit(runChild(child))
	}
	os.Exit(func() int {
		dir := os.Getenv(poolDirVariable)
		if dir == "" {
			fmt.Println("not tested: calls to the kernel; set " + poolDirVariable + " on a machine with ZFS")
			return m.Run()
		}
		name, destroy, err := makePool(dir, 1<<30)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer destroy()
		sharedPool = name
		return m.Run()
	}())
}

var pools atomic.Int32

// makePool creates a pool of that size on a file.
func makePool(dir string, size int64) (name string, destroy func(), err error) {
	name = fmt.Sprintf("zfstpltest%dx%d", os.Getpid(), pools.Add(1))
	file := filepath.Join(dir, name)
	f, err := os.Create(file)
	if err != nil {
		return "", nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return "", nil, err
	}
	if _, err := output("zpool", "create", "-f", "-O", "canmount=off", "-O", "mountpoint=legacy", name, file); err != nil {
		os.Remove(file)
		return "", nil, err
	}
	return name, func() {
		if out, err := output("zpool", "destroy", "-f", name); err != nil {
			fmt.Println(out, err)
		}
		os.Remove(file)
	}, nil
}

func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := output(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// open returns a handle and an empty file system for this test.
func open(t testing.TB) (*Handle, string) {
	t.Helper()
	if sharedPool == "" {
		t.Skip("needs ZFS: 'make test-long' runs it in the testbed, or set " + poolDirVariable + " on a machine that has it")
	}
	h, err := Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	base := sharedPool + "/" + strings.ReplaceAll(t.Name(), "/", "_")
	must(t, h.Create(t.Context(), base, map[string]string{"mountpoint": "legacy"}))
	return h, base
}

// openOn is open with a pool of that size of its own.
func openOn(t testing.TB, size int64) (*Handle, string) {
	t.Helper()
	if sharedPool == "" {
		t.Skip("needs ZFS: 'make test-long' runs it in the testbed, or set " + poolDirVariable + " on a machine that has it")
	}
	pool, destroy, err := makePool(os.Getenv(poolDirVariable), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(destroy)
	h, err := Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h, pool
}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want fails the test if the error does not have that errno.
func want(t testing.TB, err error, errno syscall.Errno) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, errno) || e.Op == "" {
		t.Errorf("got %v, want %v", err, errText(errno))
	}
}

// template creates a file system with a snapshot and returns the snapshot.
func template(t testing.TB, h *Handle, name string) string {
	t.Helper()
	must(t, h.Create(t.Context(), name, nil))
	must(t, h.Snapshots(t.Context(), []string{name + "@s"}, nil))
	return name + "@s"
}

// mount mounts a file system or snapshot for the duration of the test.
func mount(t testing.TB, dataset string) string {
	t.Helper()
	dir := t.TempDir()
	flags := uintptr(0)
	if strings.Contains(dataset, "@") {
		flags = unix.MS_RDONLY
	}
	must(t, unix.Mount(dataset, dir, "zfs", flags, ""))
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	return dir
}

// release returns the release of the module.
func release(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(versionPath)
	must(t, err)
	return strings.TrimSpace(string(b))
}

func exists(t testing.TB, h *Handle, name string) bool {
	t.Helper()
	_, err := h.FastStat(t.Context(), name)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		t.Fatal(err)
	}
	return err == nil
}

func TestPoolPassesTheSelfTest(t *testing.T) {
	h, _ := open(t)
	t.Logf("ZFS %s", release(t))
	must(t, h.SelfTest(t.Context(), sharedPool))

	h2, err := Open(t.Context())
	must(t, err)
	if err := h2.SelfTest(t.Context(), "zfstpltestnone"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("self-test on no pool: got %v", err)
	}
	must(t, h2.Close())
	if _, err := h2.FastStat(t.Context(), sharedPool); !errors.Is(err, syscall.EBADF) {
		t.Errorf("after Close: got %v", err)
	}
	if _, err := openAt(t.Context(), versionPath, "/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no device: got %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range map[string]error{
		"destroy": h.Destroy(ctx, sharedPool+"/none"),
		"stat":    func() error { _, err := h.Stat(ctx, sharedPool); return err }(),
		"wait":    func() error { _, err := h.WaitFree(ctx, sharedPool); return err }(),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The words of native properties mean the same to this package and to the zfs command.
func TestPoolPropertiesAgreeWithTheCommand(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	check := func(property, word string) {
		t.Helper()
		if err := h.SetProperties(ctx, base, map[string]string{property: word}); err != nil {
			t.Error(err)
			return
		}
		got := run(t, "zfs", "get", "-Hpo", "value", property, base)
		same := word == "none" && got == "0" || word == "sa" && got == "on" // 2.3 prints xattr so
		if got != word && !same {
			t.Errorf("%s=%s reads %s", property, word, got)
		}
	}
	for property, words := range nativeWords {
		for word := range words {
			check(property, word)
		}
	}
	for _, p := range [][2]string{
		{"compression", "zstd-1"}, {"compression", "zstd-19"}, {"quota", "100000000"}, {"refquota", "100000000"},
		{"reservation", "1048576"}, {"refreservation", "1048576"}, {"recordsize", "65536"},
		{"mountpoint", "/somewhere"}, {"mountpoint", "none"}, {"mountpoint", "legacy"},
		{"org.zfstpl:r", "ä b"}, {"org.zfstpl:r", ""}, {"org.zfstpl:r", strings.Repeat("x", 8191)},
	} {
		check(p[0], p[1])
	}

	// Create sets them too.
	must(t, h.Create(ctx, base+"/made", map[string]string{
		"canmount": "noauto", "xattr": "sa", "acltype": "posix", "atime": "off", "dnodesize": "auto", "compression": "lz4", "org.zfstpl:base": "1",
	}))
	got := run(t, "zfs", "get", "-Hpo", "value", "canmount,acltype,atime,dnodesize,compression,org.zfstpl:base", base+"/made")
	if got != "noauto\nposix\noff\nauto\nlz4\n1" {
		t.Errorf("created with %q", got)
	}

	user := func(name, value string) error {
		return h.SetProperties(ctx, base, map[string]string{name: value})
	}
	want(t, user("org.zfstpl:r", strings.Repeat("x", 8192)), syscall.E2BIG)
	want(t, user("a:"+strings.Repeat("x", 254), "v"), syscall.ENAMETOOLONG)
	want(t, user("BAD:NAME", "v"), syscall.EINVAL)
	want(t, user("recordsize", "1000"), syscall.EINVAL)
	want(t, user("reservation", "1000000000000000"), syscall.ENOSPC)
	want(t, h.changeList(ctx, "set", reqSetProp, base, nvlist.List{{Name: "canmount", Value: uint64(7)}}), errnoBadProperty)
	want(t, h.changeList(ctx, "set", reqSetProp, base, nvlist.List{{Name: "canmount", Value: "on"}}), syscall.EINVAL)
	want(t, user("frobnicate", "on"), syscall.EINVAL)
	want(t, h.SetProperties(ctx, base+"/none", map[string]string{"a:b": "c"}), syscall.ENOENT)
	if err := user("a:b", "c\x00d"); err == nil {
		t.Error("a value with a NUL was set")
	}

	// A bad property is returned, and does not prevent the others.
	err := h.SetProperties(ctx, base, map[string]string{"a:good": "1", "reservation": "1000000000000000"})
	var e *Error
	if !errors.As(err, &e) || e.Each["reservation"] != syscall.ENOSPC || len(e.Each) != 1 {
		t.Errorf("got %v", err)
	}
	if got := run(t, "zfs", "get", "-Hpo", "value", "a:good", base); got != "1" {
		t.Errorf("the valid property is %q", got)
	}
}

func TestPoolInheritRemovesProperties(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	name := base + "/a"
	must(t, h.Create(ctx, name, map[string]string{"org.zfstpl:r": "x", "compression": "lz4"}))
	must(t, h.Inherit(ctx, name, "org.zfstpl:r"))
	must(t, h.Inherit(ctx, name, "compression"))
	if got := run(t, "zfs", "get", "-Hpo", "source", "org.zfstpl:r,compression", name); got != "-\ndefault" {
		t.Errorf("source is %q", got)
	}
	must(t, h.Inherit(ctx, name, "org.zfstpl:r")) // is not set
	must(t, h.Inherit(ctx, name, "org.zfstpl:never"))
	want(t, h.Inherit(ctx, name, "quota"), syscall.EINVAL)
	want(t, h.Inherit(ctx, name, "frobnicate"), syscall.EINVAL)
	want(t, h.Inherit(ctx, base+"/none", "org.zfstpl:r"), syscall.ENOENT)
}

func TestPoolCreateReturnsErrnos(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	must(t, h.Create(ctx, base+"/a", nil))
	want(t, h.Create(ctx, base+"/a", nil), syscall.EEXIST)
	want(t, h.Create(ctx, base+"/none/a", nil), syscall.ENOENT)
	want(t, h.Create(ctx, "zfstpltestnone/a", nil), syscall.ENOENT)
	for _, name := range []string{"", base + "/bad*", base + "//a", base + "/", base + "/a@b", base + "/%recv", base + "/..", strings.Repeat("n", 300), "x\x00y"} {
		if err := h.Create(ctx, name, nil); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENAMETOOLONG) {
			t.Errorf("%q: got %v", name, err)
		}
	}
	// After a bad property the file system is destroyed.
	err := h.Create(ctx, base+"/b", map[string]string{"reservation": "1000000000000000"})
	var e *Error
	if !errors.As(err, &e) || e.Each["reservation"] != syscall.ENOSPC {
		t.Errorf("got %v", err)
	}
	if exists(t, h, base+"/b") {
		t.Error("the file system with a bad property exists")
	}
	run(t, "zfs", "create", "-s", "-V", "8M", base+"/vol")
	want(t, h.Create(ctx, base+"/vol/a", nil), errnoWrongParent)
}

func TestPoolCloneReturnsErrnos(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	snap := template(t, h, base+"/t")
	must(t, h.Clone(ctx, snap, base+"/c", nil))
	must(t, h.Clone(ctx, snap, base+"/d", map[string]string{"org.zfstpl:record": "{\"k\":1}", "readonly": "on"}))
	d, err := h.Stat(ctx, base+"/d")
	must(t, err)
	if d.Origin != snap || d.User["org.zfstpl:record"] != `{"k":1}` || len(d.User) != 1 {
		t.Errorf("got %+v", d)
	}
	want(t, h.Clone(ctx, snap, base+"/c", nil), syscall.EEXIST)
	want(t, h.Clone(ctx, base+"/t@none", base+"/e", nil), syscall.ENOENT)
	want(t, h.Clone(ctx, snap, base+"/none/e", nil), syscall.ENOENT)
	want(t, h.Clone(ctx, base+"/t", base+"/e", nil), syscall.EINVAL)
	want(t, h.Clone(ctx, snap, base+"/bad*", nil), syscall.EINVAL)
	want(t, h.Clone(ctx, snap, base+"/e", map[string]string{"reservation": "1000000000000000"}), syscall.ENOSPC)
	if exists(t, h, base+"/e") {
		t.Error("the clone with a bad property exists")
	}
	_, other := openOn(t, 128<<20)
	want(t, h.Clone(ctx, snap, other+"/e", nil), syscall.EXDEV)
}

func TestPoolSnapshotsAreAtomic(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	must(t, h.Create(ctx, base+"/a", nil))
	must(t, h.Create(ctx, base+"/b", nil))
	must(t, h.Snapshots(ctx, []string{base + "/a@1", base + "/b@1"}, map[string]string{"org.zfstpl:r": "x"}))
	must(t, h.Snapshots(ctx, nil, nil))
	s, err := h.Stat(ctx, base+"/b@1")
	must(t, err)
	if !s.Snapshot || s.User["org.zfstpl:r"] != "x" || s.Mountpoint != "" {
		t.Errorf("got %+v", s)
	}
	// All or none.
	err = h.Snapshots(ctx, []string{base + "/a@2", base + "/b@1"}, nil)
	want(t, err, syscall.EEXIST)
	var e *Error
	if errors.As(err, &e) && e.Each[base+"/b@1"] != syscall.EEXIST {
		t.Errorf("each is %v", e.Each)
	}
	if exists(t, h, base+"/a@2") {
		t.Error("one of two snapshots was taken")
	}
	want(t, h.Snapshots(ctx, []string{base + "/a@3", base + "/a@4"}, nil), syscall.EXDEV)
	want(t, h.Snapshots(ctx, []string{base + "/a@3", "other/a@4"}, nil), syscall.EXDEV)
	want(t, h.Snapshots(ctx, []string{base + "/none@3"}, nil), syscall.ENOENT)
	want(t, h.Snapshots(ctx, []string{base + "/a@bad*"}, nil), syscall.EINVAL)
	want(t, h.Snapshots(ctx, []string{base + "/a"}, nil), syscall.EINVAL)
	want(t, h.Snapshots(ctx, []string{base + "/a@5"}, map[string]string{"atime": "off"}), syscall.EINVAL)

	list, err := h.ListSnapshots(ctx, base+"/a")
	must(t, err)
	a, err := h.FastStat(ctx, base+"/a@1")
	must(t, err)
	if !slices.Equal(list, []string{"1"}) || a.GUID == 0 || a.CreateTXG != s.CreateTXG {
		t.Errorf("got %q, %+v", list, a)
	}
	if list, err := h.ListSnapshots(ctx, base); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
	_, err = h.ListSnapshots(ctx, base+"/none")
	want(t, err, syscall.ENOENT)
}

func TestPoolDestroySnapshotsIsAtomic(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	must(t, h.Create(ctx, base+"/a", nil))
	snap := func(s string) string { return base + "/a@" + s }
	for _, s := range []string{"free", "free2", "cloned", "held", "mounted"} {
		must(t, h.Snapshots(ctx, []string{snap(s)}, nil))
	}
	must(t, h.Clone(ctx, snap("cloned"), base+"/c", nil))
	run(t, "zfs", "hold", "keep", snap("held"))
	dir := mount(t, snap("mounted"))

	// All or none.
	err := h.DestroySnapshots(ctx, []string{snap("free"), snap("cloned")})
	want(t, err, syscall.EEXIST)
	var e *Error
	if errors.As(err, &e) && (e.Each[snap("cloned")] != syscall.EEXIST || len(e.Each) != 1) {
		t.Errorf("each is %v", e.Each)
	}
	if !exists(t, h, snap("free")) {
		t.Error("one of two snapshots was destroyed")
	}
	want(t, h.DestroySnapshots(ctx, []string{snap("held")}), syscall.EBUSY)
	want(t, h.DestroySnapshots(ctx, []string{snap("mounted")}), syscall.EBUSY)
	want(t, h.Destroy(ctx, snap("mounted")), syscall.EBUSY)
	want(t, h.Destroy(ctx, snap("held")), syscall.EBUSY)
	want(t, h.Destroy(ctx, snap("cloned")), syscall.EEXIST)
	must(t, unix.Unmount(dir, 0))
	run(t, "zfs", "release", "keep", snap("held"))
	must(t, h.DestroySnapshots(ctx, []string{snap("free"), snap("free"), snap("held"), snap("mounted"), snap("none"), base + "/none@x"}))
	must(t, h.Destroy(ctx, snap("free2")))
	must(t, h.DestroySnapshots(ctx, nil))
	list, err := h.ListSnapshots(ctx, base+"/a")
	must(t, err)
	cloned, err := h.FastStat(ctx, snap("cloned"))
	must(t, err)
	if !slices.Equal(list, []string{"cloned"}) || cloned.Clones != 1 {
		t.Errorf("left are %q, %+v", list, cloned)
	}
}

func TestPoolDestroyReturnsErrnos(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	snap := template(t, h, base+"/t")
	must(t, h.Create(ctx, base+"/p", nil))
	must(t, h.Create(ctx, base+"/p/c", nil))
	want(t, h.Destroy(ctx, base+"/none"), syscall.ENOENT)
	want(t, h.Destroy(ctx, base+"/p"), syscall.EEXIST)
	want(t, h.Destroy(ctx, base+"/t"), syscall.EBUSY)
	want(t, h.Destroy(ctx, base+"/bad*"), syscall.EINVAL)
	dir := mount(t, base+"/p/c")
	want(t, h.Destroy(ctx, base+"/p/c"), syscall.EBUSY)
	must(t, unix.Unmount(dir, 0))
	must(t, h.Destroy(ctx, base+"/p/c"))
	must(t, h.Destroy(ctx, snap))
	must(t, h.Destroy(ctx, base+"/t"))
	want(t, h.Destroy(ctx, base+"/t\x00"), syscall.EINVAL)
}

func TestPoolPromoteReturnsTheConflict(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	snap := template(t, h, base+"/t")
	must(t, h.Clone(ctx, snap, base+"/c", nil))
	must(t, h.Snapshots(ctx, []string{base + "/c@s"}, nil))
	conflict, err := h.Promote(ctx, base+"/c")
	want(t, err, syscall.EEXIST)
	if conflict != "s" {
		t.Errorf("conflict is %q", conflict)
	}
	must(t, h.Destroy(ctx, base+"/c@s"))
	if conflict, err = h.Promote(ctx, base+"/c"); err != nil || conflict != "" {
		t.Errorf("got %q, %v", conflict, err)
	}
	c, err := h.FastStat(ctx, base+"/c")
	must(t, err)
	former, err := h.FastStat(ctx, base+"/t")
	must(t, err)
	if c.Origin != "" || former.Origin != base+"/c@s" {
		t.Errorf("got %+v and %+v", c, former)
	}
	_, err = h.Promote(ctx, base+"/c")
	want(t, err, syscall.EINVAL)
	_, err = h.Promote(ctx, base+"/none")
	want(t, err, syscall.ENOENT)
	mount(t, base+"/c@s")
	_, err = h.Promote(ctx, base+"/t")
	want(t, err, syscall.EBUSY)
}

func TestPoolRenameKeepsMounts(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	snap := template(t, h, base+"/a")
	dir := mount(t, base+"/a")
	must(t, h.Rename(ctx, base+"/a", base+"/b"))
	must(t, os.WriteFile(dir+"/still-mounted", nil, 0o600))
	must(t, h.Rename(ctx, base+"/b@s", base+"/b@z"))
	if exists(t, h, snap) || !exists(t, h, base+"/b@z") {
		t.Error("not renamed")
	}
	must(t, h.Create(ctx, base+"/c", nil))
	want(t, h.Rename(ctx, base+"/b", base+"/c"), syscall.EEXIST)
	want(t, h.Rename(ctx, base+"/none", base+"/d"), syscall.ENOENT)
	want(t, h.Rename(ctx, base+"/b", base+"/none/d"), syscall.ENOENT)
	want(t, h.Rename(ctx, base+"/b", base+"/b/d"), syscall.EINVAL)
	want(t, h.Rename(ctx, base+"/b", base+"/bad*"), syscall.EINVAL)
	want(t, h.Rename(ctx, base+"/b@z", base+"/c@z"), syscall.EXDEV)
	must(t, h.Snapshots(ctx, []string{base + "/b@y"}, nil))
	want(t, h.Rename(ctx, base+"/b@z", base+"/b@y"), syscall.EEXIST)
	_, other := openOn(t, 128<<20)
	want(t, h.Rename(ctx, base+"/b", other+"/b"), syscall.EXDEV)
}
