package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// udevData is where udev remembers what it knows of a device.
const udevData = "/run/udev/data"

// linkDisks gives the partition of every extra disk its stable name, and does
// for it what udev would.
func linkDisks() error {
	for _, dir := range []string{DiskDir, "/dev/disk/by-id", udevData} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for i := 0; ; i++ {
		name := DiskSerial + strconv.Itoa(i)
		device, err := findDisk(name)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := os.Symlink(device+"1", filepath.Join(DiskDir, name)); err != nil {
			return err
		}
		if err := errors.Join(announce(device, "virtio-"+name), announce(device+"1", "virtio-"+name+"-part1")); err != nil {
			return err
		}
	}
}

// announce makes the link and the record that udev would make. Without them
// libzfs waits for udev on every import: 50 polls, which are seconds at best
// and half a minute on a busy emulator.
func announce(device, id string) error {
	number, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(device), "dev"))
	if err != nil {
		return err
	}
	link := "disk/by-id/" + id
	if err := os.Symlink(device, filepath.Join("/dev", link)); err != nil {
		return err
	}
	record := fmt.Sprintf("S:%s\nI:1000000\nG:systemd\nV:1\n", link)
	return os.WriteFile(filepath.Join(udevData, "b"+strings.TrimSpace(string(number))), []byte(record), 0o644)
}
