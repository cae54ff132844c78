package zfs

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// maxName is ZFS_MAX_DATASET_NAME_LEN less the terminating NUL.
	maxName = 255
	// maxPropertyName is ZAP_MAXNAMELEN less the terminating NUL.
	maxPropertyName = 255
	// MaxPropertyValue is the longest value of a user property in bytes:
	// ZAP_MAXVALUELEN less the terminating NUL.
	MaxPropertyValue = 8191
)

// checkFilesystem refuses what is not the name of a file system. The kernel
// does so for ioctls, but a channel program creates a clone called
// "bad name!*", which then breaks every listing of its parent.
func checkFilesystem(op, name string) error {
	if reason := badName(name); reason != "" {
		return &Error{Op: op, Dataset: fmt.Sprintf("%q", name), Kind: ErrInvalid, Detail: reason}
	}
	return nil
}

func checkSnapshot(op, name string) error {
	fs, snap, ok := strings.Cut(name, "@")
	reason := badName(fs)
	switch {
	case !ok:
		reason = "a snapshot's name has an @"
	case reason == "" && (snap == "" || badCharacter(snap) != ""):
		reason = "bad snapshot name"
	case len(name) > maxName:
		reason = "name is too long"
	}
	if reason != "" {
		return &Error{Op: op, Dataset: fmt.Sprintf("%q", name), Kind: ErrInvalid, Detail: reason}
	}
	return nil
}

// badName says what is wrong with a file system's name, or nothing.
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
			return "component . or .. is not allowed"
		case component[0] == '-':
			return "a component does not begin with a dash"
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

// checkProperty refuses what is not a user property. Native properties are set
// when a file system is created and never after.
func checkProperty(op, dataset, name, value string) error {
	reason := ""
	switch {
	case len(name) > maxPropertyName:
		reason = "name is too long"
	case !strings.Contains(name, ":") || strings.HasPrefix(name, "-"):
		reason = "a user property's name has a colon and begins with no dash"
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789:+._-") != "":
		reason = "a character is not allowed in its name"
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
