package wire

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func unpackTo(t *testing.T, dir string, archive []byte) error {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return Unpack(bytes.NewReader(archive), root)
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func TestPackAndUnpack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "a/run.sh"), "#!/bin/sh\n", 0o755)
	write(t, filepath.Join(from, "b"), "bb", 0o600)
	if err := os.Symlink("a/run.sh", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(from, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	skipped, err := Pack(tw, from, "/put/x")
	if err != nil || len(skipped) != 1 || skipped[0] != "put/x/fifo" {
		t.Fatal(skipped, err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second time, over what is there
		if err := unpackTo(t, to, archive.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(to, "put/x/link"))
	if err != nil || info.Mode().Perm() != 0o755 || info.Size() != 10 {
		t.Error(info, err)
	}
	if content, err := os.ReadFile(filepath.Join(to, "put/x/b")); string(content) != "bb" || err != nil {
		t.Error(string(content), err)
	}
}

func TestPackOneFileThroughALink(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	write(t, filepath.Join(from, "real"), "text", 0o644)
	link := filepath.Join(from, "link")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	if _, err := Pack(tw, link, "name"); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unpackTo(t, to, archive.Bytes()); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(filepath.Join(to, "name")); string(content) != "text" || err != nil {
		t.Error(string(content), err)
	}
}

func TestUnpackStaysInside(t *testing.T) {
	for name, members := range map[string][]tar.Header{
		"a name that climbs":      {{Name: "../evil", Typeflag: tar.TypeReg, Size: 4}},
		"one that climbs later":   {{Name: "a/../../evil", Typeflag: tar.TypeReg, Size: 4}},
		"an absolute name":        {{Name: "/evil", Typeflag: tar.TypeReg, Size: 4}},
		"a directory that climbs": {{Name: "../evil/", Typeflag: tar.TypeDir}},
		"a link out": {
			{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."},
			{Name: "l/evil", Typeflag: tar.TypeReg, Size: 4},
		},
		"an absolute link out": {
			{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/tmp"},
			{Name: "l/testbed-evil", Typeflag: tar.TypeReg, Size: 4},
		},
		"a hard link":  {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../secret"}},
		"a device":     {{Name: "d", Typeflag: tar.TypeBlock, Devmajor: 8}},
		"an empty one": {{Name: "", Typeflag: tar.TypeReg}},
	} {
		t.Run(name, func(t *testing.T) {
			outer := t.TempDir()
			dir := filepath.Join(outer, "in/dir")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			var archive bytes.Buffer
			tw := tar.NewWriter(&archive)
			for _, header := range members {
				if err := tw.WriteHeader(&header); err != nil {
					t.Fatal(err)
				}
				if header.Size > 0 {
					if _, err := tw.Write([]byte("evil")); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := tw.Close(); err != nil {
				t.Fatal(err)
			}
			if err := unpackTo(t, dir, archive.Bytes()); err == nil {
				t.Error("it was unpacked")
			}
			for _, path := range []string{filepath.Join(outer, "in/evil"), filepath.Join(outer, "evil"), "/tmp/testbed-evil"} {
				if _, err := os.Lstat(path); err == nil {
					t.Error("it wrote", path)
				}
			}
		})
	}
}

func TestUnpackReplacesALinkInsteadOfFollowingIt(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "secret", 0o600)
	if err := os.Symlink(secret, filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	if err := tw.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 4, Mode: 0o4777}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write([]byte("evil")); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := unpackTo(t, dir, archive.Bytes()); err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(secret); string(content) != "secret" || err != nil {
		t.Error(string(content), err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "f")); err != nil || info.Mode() != 0o777 {
		t.Error(info.Mode(), err)
	}
}

func TestUnpackTruncated(t *testing.T) {
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	if err := tw.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 4000}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write([]byte(strings.Repeat("x", 4000))); err != nil {
		t.Fatal(err)
	}
	if err := unpackTo(t, t.TempDir(), archive.Bytes()[:2000]); err == nil {
		t.Error("it was taken for complete")
	}
}
