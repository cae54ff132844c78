package zfs

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// maxName is ZFS_MAX_DATASET_NAME_LEN without the terminating NUL.
	maxName = 255
	// maxPropertyName is ZAP_MAXNAMELEN without the terminating NUL.
	maxPropertyName = 255
	// MaxPropertyValue is the length of the longest value of a user property in bytes:
	// ZAP_MAXVALUELEN without the terminating NUL.
	MaxPropertyValue = 8191
)

// checkFilesystem returns an error for a name that is not that of a file system. The
// kernel checks names in ioctls, but a channel program creates a clone called "bad
// name!*", which breaks every listing of its parent.
func checkFilesystem(op, name string) error {
	return invalidName(op, name, badName(name))
}

func checkSnapshot(op, name string) error {
	fs, snap, ok := strings.Cut(name, "@")
	reason := badName(fs)
	switch {
	case !ok:
		reason = "a snapshot name needs an @"
	case reason == "" && (snap == "" || badCharacter(snap) != ""):
		reason = "bad snapshot name"
	case len(name) > maxName:
		reason = "name is too long"
	}
	return invalidName(op, name, reason)
}

func invalidName(op, name, reason string) error {
	if reason == "" {
		return nil
	}
	return &Error{Op: op, Dataset: fmt.Sprintf("%q", name), Kind: ErrInvalid, Detail: reason}
}

// badName returns what is wrong with the name of a file system, or "".
func badName(name string) string {
	if name == "" {
		return "name is empty"
	}
	if len(name) > maxName {
		return "name is too long"
	}
	for _, component := range strings.Split(name, "/") {
		switch {
		case component == "":
			return "name has an empty component"
		case component == "." || component == "..":
			return "the components . and .. are not allowed"
		case component[0] == '-':
			return "a component must not begin with a dash"
		}
		if reason := badCharacter(component); reason != "" {
			return reason
		}
	}
	return ""
}

func badCharacter(s string) string {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-_.:", c) >= 0:
		default:
			return fmt.Sprintf("character %q is not allowed", c)
		}
	}
	return ""
}

// checkProperty returns an error for what is not a user property. Apply sets no other
// properties, except a quota.
func checkProperty(op, dataset, name, value string) error {
	reason := ""
	switch {
	case len(name) > maxPropertyName:
		reason = "name is too long"
	case !strings.Contains(name, ":") || strings.HasPrefix(name, "-"):
		reason = "the name of a user property needs a colon and must not begin with a dash"
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789:+._-") != "":
		reason = "its name has a character that is not allowed"
	case len(value) > MaxPropertyValue:
		reason = fmt.Sprintf("value of %d bytes is longer than %d", len(value), MaxPropertyValue)
	case strings.ContainsAny(value, "\x00\n\t"):
		reason = "value has a NUL, a newline or a tab"
	case !utf8.ValidString(value):
		reason = "value is not UTF-8"
	}
	if reason != "" {
		return &Error{Op: op, Dataset: dataset, Kind: ErrInvalid, Detail: fmt.Sprintf("property %q: %s", name, reason)}
	}
	return nil
}
