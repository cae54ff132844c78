package plugin

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"

	"github.com/moby/sys/mountinfo"
)

var mountNumber = regexp.MustCompile(`(?m)^mnt_id:\s*(\d+)$`)

// mountOf returns the mount that an open directory is of. Tests whose base is a mere
// directory have another one.
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
		return nil, errors.New("the kernel does not report which mount a directory is of")
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
		return nil, fmt.Errorf("%s is of a mount that is in no mount table", root.Name())
	}
	return found[0], nil
}
