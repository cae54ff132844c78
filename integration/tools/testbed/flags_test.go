package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/machine"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"512": 512, "1K": 1 << 10, "300M": 300 << 20, "2G": 2 << 30, "2GiB": 2 << 30, "1T": 1 << 40, "8GB": 8 << 30,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "G", "-1G", "1.5G", "1X", "99999999999999999999", "999999999999T"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q was taken for %d", text, got)
		}
	}
}

func TestParsePut(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]machine.Put{
		file:                    {Host: file, Guest: "/put/file"},
		dir + "/:":              {Host: dir, Guest: "/put/" + filepath.Base(dir)},
		file + ":/usr/bin/":     {Host: file, Guest: "/usr/bin/file"},
		file + ":/etc/../x":     {Host: file, Guest: "/x"},
		dir + ":/root/work:odd": {Host: dir, Guest: "/root/work:odd"},
	} {
		if got, err := parsePut(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":/x", file + ":relative", filepath.Join(dir, "none")} {
		if got, err := parsePut(text); err == nil {
			t.Errorf("%q was taken for %v", text, got)
		}
	}
}

func TestParseEnv(t *testing.T) {
	t.Setenv("TESTBED_TEST", "from here")
	for text, want := range map[string]string{
		"A=b": "A=b", "A=": "A=", "A=b=c": "A=b=c", "TESTBED_TEST": "TESTBED_TEST=from here",
	} {
		if got, err := parseEnv(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "=x", "TESTBED_UNSET_VARIABLE"} {
		if got, err := parseEnv(text); err == nil {
			t.Errorf("%q was taken for %q", text, got)
		}
	}
}

func TestParseParameter(t *testing.T) {
	if got, err := parseParameter("zfs_txg_timeout=1"); err != nil || got != "zfs.zfs_txg_timeout=1" {
		t.Error(got, err)
	}
	for _, text := range []string{"", "x", "x=", "x=1 init=/bin/sh", "a.b=c", `x="`} {
		if got, err := parseParameter(text); err == nil {
			t.Errorf("%q was taken for %q", text, got)
		}
	}
}

func TestParseDisks(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "old.img"), []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	disks, err := parseDisks([]string{"1G", "2G"}, []string{"new", dir + "/file"}, dir)
	if err != nil || len(disks) != 2 {
		t.Fatal(disks, err)
	}
	if disks[0] != (diskSpec{1 << 30, filepath.Join(dir, "new.img")}) || disks[1] != (diskSpec{2 << 30, dir + "/file"}) {
		t.Error(disks)
	}
	disks, err = parseDisks(nil, []string{"old"}, dir)
	if err != nil || disks[0].size != 0 {
		t.Error(disks, err)
	}
	for _, keeps := range [][]string{{"none"}, {""}, {".."}} {
		if _, err := parseDisks(nil, keeps, dir); err == nil {
			t.Errorf("%q was accepted", keeps)
		}
	}
}
