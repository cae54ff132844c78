package plugin

import (
	"fmt"
	"os"
	"regexp"
	"strconv"

	"github.com/moby/sys/mountinfo"
)

var mountNumber = regexp.MustCompile(`(?m)^mnt_id:\s*(\d+)$`)

// mountOf returns the mount of an open directory. Tests replace it if their base is a
// plain directory.
var mountOf = realMountOf

func realMountOf(root *os.Root) (*mountinfo.Info, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", dir.Fd()))
	if err != nil {
		return nil, err
	}
	number := mountNumber.FindSubmatch(text)
	if number == nil {
		return nil, fmt.Errorf("the kernel does not report the mount of %s", root.Name())
	}
	id, err := strconv.Atoi(string(number[1]))
	if err != nil {
		return nil, err
	}
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.ID != id, i.ID == id })
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("the mount table does not have the mount of %s", root.Name())
	}
	return found[0], nil
}
