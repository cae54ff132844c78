//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A listing agrees with the zfs command, for many kinds of trees.
func TestPoolListAgreesWithTheCommand(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	snap := template(t, h, base+"/t")
	must(t, h.Create(ctx, base+"/m", map[string]string{"mountpoint": "/mnt/m", "org.zfstpl:a": "1"}))
	must(t, h.Create(ctx, base+"/m/x", map[string]string{"org.zfstpl:b": "ä\\ x"}))
	must(t, h.Create(ctx, base+"/m/x/y", map[string]string{"mountpoint": "none"}))
	must(t, h.Create(ctx, base+"/root", map[string]string{"mountpoint": "/"}))
	must(t, h.Create(ctx, base+"/root/z", nil))
	must(t, h.SetProperties(ctx, base+"/root", map[string]string{"canmount": "off"}))
	must(t, h.SetProperties(ctx, base+"/root/z", map[string]string{"canmount": "off"}))
	for i := range 30 {
		must(t, h.Clone(ctx, snap, fmt.Sprintf("%s/m/c%d", base, i), map[string]string{"org.zfstpl:r": strings.Repeat("r", 100*i)}))
	}
	// Received properties, one of which is also set locally.
	run(t, "sh", "-c", "zfs snapshot "+base+"/m@send && zfs send -p "+base+"/m@send | zfs receive -u "+base+"/received")
	must(t, h.Create(ctx, base+"/received/child", nil))
	must(t, h.SetProperties(ctx, base+"/received", map[string]string{"org.zfstpl:c": "local"}))
	run(t, "zfs", "create", "-s", "-V", "8M", base+"/vol")
	must(t, h.Sync(ctx, sharedPool))

	got, err := h.ListFilesystems(ctx, base)
	must(t, err)
	found := map[string]Dataset{}
	for _, d := range got {
		if _, listed := found[d.Name]; listed {
			t.Errorf("%s is listed twice", d.Name)
		}
		if parent := filepath.Dir(d.Name); d.Name != base && found[parent].Name == "" {
			t.Errorf("%s is listed before its parent", d.Name)
		}
		found[d.Name] = d
	}
	lines := strings.Split(run(t, "zfs", "get", "-Hp", "-r", "-t", "filesystem", "-o", "name,property,source,value", "all", base), "\n")
	names := map[string]bool{}
	for _, line := range lines {
		f := strings.Split(line, "\t")
		names[f[0]] = true
		compare(t, found[f[0]], f[1], f[2], f[3])
	}
	if len(names) != len(got) {
		t.Errorf("%d file systems, the command lists %d", len(got), len(names))
	}
	if len(names) < 38 {
		t.Errorf("only %d file systems", len(names))
	}
	if p := found[base+"/received"].User["org.zfstpl:a"]; p != "1" {
		t.Errorf("received property is %q", p)
	}
	if p := found[base+"/received"].User["org.zfstpl:c"]; p != "local" {
		t.Errorf("local property is %q", p)
	}
	if p := found[base+"/received/child"].User; p != nil {
		t.Errorf("inherited properties are %+v", p)
	}

	// Stat and FastStat return the same.
	for name, d := range found {
		one, err := h.Stat(ctx, name)
		must(t, err)
		if fmt.Sprintf("%+v", one) != fmt.Sprintf("%+v", d) {
			t.Errorf("Stat  %+v\nList %+v", one, d)
		}
		fast, err := h.FastStat(ctx, name)
		must(t, err)
		if fast != d.Stats {
			t.Errorf("FastStat %+v\nList %+v", fast, d.Stats)
		}
	}
	fast, err := h.FastStat(ctx, snap)
	must(t, err)
	if fast.Clones != 30 || !fast.Snapshot {
		t.Errorf("got %+v", fast)
	}
	_, err = h.ListFilesystems(ctx, base+"/none")
	want(t, err, syscall.ENOENT)
	_, err = h.Stat(ctx, base+"/none")
	want(t, err, syscall.ENOENT)
	_, err = h.Stat(ctx, "bad*")
	want(t, err, syscall.EINVAL)
}

func compare(t *testing.T, d Dataset, property, source, value string) {
	t.Helper()
	var got string
	switch property {
	case "guid":
		got = strconv.FormatUint(d.GUID, 10)
	case "createtxg":
		got = strconv.FormatUint(d.CreateTXG, 10)
	case "used":
		got = strconv.FormatUint(d.Used, 10)
	case "referenced":
		got = strconv.FormatUint(d.Referenced, 10)
	case "creation":
		got = strconv.FormatInt(d.Created.Unix(), 10)
	case "origin":
		got = d.Origin
	case "mountpoint":
		got = d.Mountpoint
	default:
		if !strings.Contains(property, ":") {
			return
		}
		p, ok := d.User[property]
		if own := source == "local" || source == "received"; own != ok || ok && p != value {
			t.Errorf("%s: %s is %q, the command prints %q, %s", d.Name, property, p, value, source)
		}
		return
	}
	if got != value {
		t.Errorf("%s: %s is %s, the command prints %s", d.Name, property, got, value)
	}
}

// A call whose list does not fit is repeated, and nothing is lost or duplicated.
func TestPoolListEnlargesItsBuffer(t *testing.T) {
	h, base := open(t)
	ctx := t.Context()
	long := map[string]string{}
	for i := range 12 {
		long[fmt.Sprintf("org.zfstpl:p%d", i)] = strings.Repeat("v", 8000)
	}
	for i := range 5 {
		must(t, h.Create(ctx, fmt.Sprintf("%s/%d", base, i), long))
	}
	for range 3 {
		list, err := h.ListFilesystems(ctx, base)
		must(t, err)
		if len(list) != 6 {
			t.Errorf("%d file systems", len(list))
		}
		for _, d := range list[1:] {
			if len(d.User) != 12 {
				t.Errorf("%s has %d properties", d.Name, len(d.User))
			}
		}
	}
}

func TestPoolStateAgreesWithTheCommand(t *testing.T) {
	h, pool := openOn(t, 256<<20)
	ctx := t.Context()
	names, err := h.Pools(ctx)
	must(t, err)
	if s := strings.Join(names, "\n"); s != run(t, "sh", "-c", "zpool list -Ho name | LC_ALL=C sort") {
		t.Errorf("pools are %q", s)
	}
	must(t, h.Sync(ctx, pool))
	check := func(p poolDetails) {
		t.Helper()
		var got, want string
		for range 10 { // a transaction group may be written in between
			want = run(t, "zpool", "get", "-Hpo", "value", "size,allocated,free,freeing,leaked,guid,health,readonly", pool)
			readonly := "off"
			if p.ReadOnly {
				readonly = "on"
			}
			got = fmt.Sprintf("%d\n%d\n%d\n%d\n%d\n%d\n%s\n%s", p.Size, p.Allocated, p.Free, p.Freeing, p.Leaked, p.GUID, p.Health, readonly)
			if got == want {
				return
			}
			var err error
			p, err = h.details(ctx, pool)
			must(t, err)
		}
		t.Errorf("pool is %q, the command prints %q", got, want)
	}
	p, err := h.details(ctx, pool)
	must(t, err)
	check(p)
	if p.Suspended || p.Checkpoint || p.Health != "ONLINE" || p.Name != pool {
		t.Errorf("got %+v", p)
	}

	must(t, h.Create(ctx, pool+"/a", map[string]string{"mountpoint": "legacy", "compression": "off"}))
	dir := mount(t, pool+"/a")
	must(t, os.WriteFile(dir+"/f", make([]byte, 16<<20), 0o600))
	run(t, "zpool", "checkpoint", pool)
	p, err = h.details(ctx, pool)
	must(t, err)
	if !p.Checkpoint {
		t.Errorf("no checkpoint: %+v", p)
	}
	must(t, os.Remove(dir+"/f"))
	for range 4 {
		must(t, h.Sync(ctx, pool))
	}
	p, err = h.details(ctx, pool)
	must(t, err)
	if p.CheckpointBytes < 16<<20 || p.Freeing != 0 {
		t.Errorf("the checkpoint keeps no bytes: %+v", p)
	}
	run(t, "zpool", "checkpoint", "-d", "-w", pool)
	p, err = h.details(ctx, pool)
	must(t, err)
	if p.Checkpoint || p.CheckpointBytes != 0 {
		t.Errorf("the checkpoint still exists: %+v", p)
	}
	check(p)
	_, err = h.Pool(ctx, "zfstpltestnone")
	want(t, err, syscall.ENOENT)
	_, err = h.Pool(ctx, "bad/name")
	want(t, err, syscall.EINVAL)
	want(t, h.Sync(ctx, "zfstpltestnone"), syscall.ENOENT)
}

// soon bounds a call that has nothing to wait for. It is generous, because the tests
// run in an emulated machine.
const soon = 20 * time.Second
