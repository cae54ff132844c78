package layout

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// Extracted is the name of the snapshot that makes a template whole.
	// A dataset under storage without it is the remains of a crash.
	Extracted = "extracted"

	storageDir = "storage"
	runtimeDir = "runtime"

	// maxDatasetName is ZFS_MAX_DATASET_NAME_LEN less the terminating NUL.
	maxDatasetName = 255
	// maxNesting is zfs_max_dataset_nesting: slashes and the snapshot's @.
	maxNesting = 50
)

// longestBelow is the longest name this package makes below a base.
var longestBelow = len("/" + storageDir + "/" + ownedPrefix + strings.Repeat("f", ownerDigits) + "-sha256:" + strings.Repeat("f", 64) + "@" + Extracted)

// Base is the checked name of the dataset everything lives under. Its zero
// value is not a base; ParseBase makes one.
type Base struct{ name string }

// ParseBase checks name, which an administrator wrote, and answers the base it
// names. A base may be a pool or any file system below one.
func ParseBase(name string) (Base, error) {
	switch {
	case name == "":
		return Base{}, errors.New("no dataset is given: name one, such as tank/zfstpl")
	case len(name)+longestBelow > maxDatasetName:
		return Base{}, fmt.Errorf("dataset name %q is too long: at most %d characters leave room for what lies below it",
			name, maxDatasetName-longestBelow)
	case strings.Count(name, "/")+3 >= maxNesting:
		return Base{}, fmt.Errorf("dataset name %q is nested too deep", name)
	}
	for _, component := range strings.Split(name, "/") {
		if err := checkComponent(component); err != nil {
			return Base{}, fmt.Errorf("dataset name %q: %w", name, err)
		}
	}
	if first := name[0]; !isLetter(first) {
		return Base{}, fmt.Errorf("dataset name %q: a pool's name begins with a letter", name)
	}
	return Base{name: name}, nil
}

// checkComponent holds one component of a name to the characters ZFS allows,
// less the blank and the percent sign: blanks break every line-based listing,
// percent signs are ZFS's own.
func checkComponent(component string) error {
	if component == "" {
		return errors.New("empty component")
	}
	if component == "." || component == ".." {
		return fmt.Errorf("component %q is not allowed", component)
	}
	for i := range len(component) {
		if c := component[i]; !isLetter(c) && !isDigit(c) && !strings.ContainsRune("-_.:", rune(c)) {
			return fmt.Errorf("character %q is not allowed in component %q", c, component)
		}
	}
	return nil
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// String is the dataset's name.
func (b Base) String() string { return b.name }

// Pool is the name of the pool the base lies in.
func (b Base) Pool() string {
	pool, _, _ := strings.Cut(b.name, "/")
	return pool
}

// Storage is the dataset whose children are the templates.
func (b Base) Storage() string { return b.name + "/" + storageDir }

// Runtime is the dataset whose children are the runtimes.
func (b Base) Runtime() string { return b.name + "/" + runtimeDir }
