package layout

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// Extracted is the short name of the snapshot that completes a template. A dataset
	// under storage without it is partial.
	Extracted = "extracted"

	storageDir = "storage"
	runtimeDir = "runtime"

	// maxDatasetName is ZFS_MAX_DATASET_NAME_LEN without the terminating NUL.
	maxDatasetName = 255
	// maxNesting is zfs_max_dataset_nesting. It counts slashes and the @ of a
	// snapshot.
	maxNesting = 50
)

// PropertyPrefix is the prefix of the names of all user properties of zfstpl.
const PropertyPrefix = "zfstpl:"

// VersionProperty is the property of a base that holds the version of its layout.
const VersionProperty = PropertyPrefix + "version"

// longestBelow is the length of the longest name that this package appends to a base.
var longestBelow = len("/" + storageDir + "/" + ownedPrefix + strings.Repeat("f", ownerDigits) + "-sha256:" + strings.Repeat("f", 64) + "@" + Extracted)

// Base is the checked name of the base. The zero value is not a base; ParseBase
// returns one.
type Base struct{ name string }

// ParseBase checks a name that an administrator wrote and returns the base. A base may
// be a pool or any file system below one.
func ParseBase(name string) (Base, error) {
	switch {
	case name == "":
		return Base{}, errors.New("the name of the dataset is empty: set one such as tank/zfstpl")
	case len(name)+longestBelow > maxDatasetName:
		return Base{}, fmt.Errorf("dataset name %q is too long: use at most %d characters, because the names below it are longer",
			name, maxDatasetName-longestBelow)
	case strings.Count(name, "/")+3 >= maxNesting:
		return Base{}, fmt.Errorf("dataset name %q is nested too deeply", name)
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

// checkComponent allows the characters that ZFS allows in a component of a name,
// except the space and the percent sign: spaces break line-based listings, and percent
// signs are reserved by ZFS.
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

// String returns the name of the dataset.
func (b Base) String() string { return b.name }

// Pool returns the name of the base's pool.
func (b Base) Pool() string {
	pool, _, _ := strings.Cut(b.name, "/")
	return pool
}

// Storage returns the dataset whose children are the templates.
func (b Base) Storage() string { return b.name + "/" + storageDir }

// Runtime returns the dataset whose children are the runtimes.
func (b Base) Runtime() string { return b.name + "/" + runtimeDir }
