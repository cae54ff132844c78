package guest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStatusAsAShellHasIt(t *testing.T) {
	for status, want := range map[unix.WaitStatus]int{0: 0, 3 << 8: 3, 9: 137, 15: 143, 0x80 | 11: 139} {
		if got := code(status); got != want {
			t.Errorf("%#x: %d, want %d", uint32(status), got, want)
		}
	}
	if got := describe(9); got != "killed by SIGKILL" {
		t.Error(got)
	}
}

func TestMountsOfTheSystemStay(t *testing.T) {
	for target, want := range map[string]bool{
		"/": true, "/proc": true, "/sys/fs/cgroup": true, "/tmp": true,
		"/tmp/pool": false, "/tank": false, "/system": false, "/run/containerd/x": false,
	} {
		if ofSystem(target) != want {
			t.Error(target)
		}
	}
	if got := unescape.Replace(`/a\040b\134040`); got != `/a b\040` {
		t.Error(got)
	}
}

func TestFindBySysfs(t *testing.T) {
	dir := t.TempDir()
	for device, serial := range map[string]string{"vda": "root\n", "vdb": "disk0\n"} {
		if err := os.Mkdir(filepath.Join(dir, device), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, device, "serial"), []byte(serial), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if device, err := findBySysfs(dir+"/*/serial", "disk0"); err != nil || device != "/dev/vdb" {
		t.Error(device, err)
	}
	if _, err := findBySysfs(dir+"/*/serial", "disk"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A daemon holds the pipe open, and what the command wrote before its end
// must still arrive, all of it.
func TestOutputIsDrainedThoughThePipeStaysOpen(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	written := bytes.Repeat([]byte("x"), 60000)
	if _, err := write.Write(written); err != nil {
		t.Fatal(err)
	}
	if err := read.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := copyOutput(&got, read); err != nil || !bytes.Equal(got.Bytes(), written) {
		t.Error(got.Len(), err)
	}
}

func TestOutputEndsWithThePipe(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if err := copyOutput(io.Discard, read); err != nil {
		t.Error(err)
	}
}
