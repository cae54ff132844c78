package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const portWait = 10 * time.Second

// loadModules loads the kernel modules in dir, in the order of their names.
// A module's devices are there when the call returns: the virtio drivers
// probe synchronously, and devtmpfs makes the nodes.
func loadModules(dir string) error {
	files, err := filepath.Glob(dir + "/*.ko")
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := loadModule(file); err != nil {
			return fmt.Errorf("load %s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// findBySysfs returns the device node of the member of a class whose
// attribute has the value.
func findBySysfs(pattern, value string) (string, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return "", err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(string(content)) == value {
			return "/dev/" + filepath.Base(filepath.Dir(file)), nil
		}
	}
	return "", fmt.Errorf("no device with %s %q: %w", filepath.Base(pattern), value, os.ErrNotExist)
}

func findDisk(serial string) (string, error) {
	return findBySysfs("/sys/block/*/serial", serial)
}

// findPort waits for the port, whose name the device tells the driver in a
// message of its own, some milliseconds after it was probed.
func findPort(name string) (string, error) {
	for deadline := time.Now().Add(portWait); ; time.Sleep(5 * time.Millisecond) {
		device, err := findBySysfs("/sys/class/virtio-ports/*/name", name)
		if err == nil || time.Now().After(deadline) {
			return device, err
		}
	}
}

// upLoopback brings up the only network interface there is.
func upLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket) // nothing is written to it
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}
