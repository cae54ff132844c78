//go:build linux

package manifest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The types a path can have.
const (
	Directory = "dir"
	File      = "file"
	Symlink   = "symlink"
	Char      = "char"
	Block     = "block"
	Fifo      = "fifo"
	Socket    = "socket"
)

// An Entry describes one path. What does not apply to its type is left empty.
type Entry struct {
	// Path is relative to the root, which itself is ".".
	Path string `json:"path"`
	Type string `json:"type"`
	// Mode holds the permission, setuid, setgid and sticky bits in octal.
	Mode string `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	// Size and SHA256 are those of a regular file's content.
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	// Target is what a symbolic link says.
	Target string `json:"target,omitempty"`
	// Device is a device node's major:minor.
	Device string `json:"device,omitempty"`
	// Links is the first path, in the order of the manifest, of the inode this
	// path shares with others: equal values mean hard links. Empty if alone.
	Links string `json:"links,omitempty"`
	// Capability is the extended attribute security.capability in hexadecimal,
	// the only one that containerd puts into layers.
	Capability string `json:"capability,omitempty"`
}

// Write writes entries as JSON lines.
func Write(w io.Writer, entries []Entry) error {
	out := bufio.NewWriter(w)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for _, e := range entries {
		if err := encoder.Encode(e); err != nil {
			return fmt.Errorf("writing the entry of %q: %w", e.Path, err)
		}
	}
	return out.Flush()
}

// Read reads what Write wrote.
func Read(r io.Reader) ([]Entry, error) {
	var entries []Entry
	decoder := json.NewDecoder(bufio.NewReader(r))
	decoder.DisallowUnknownFields()
	for {
		var e Entry
		err := decoder.Decode(&e)
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading entry %d of the manifest: %w", len(entries)+1, err)
		}
		entries = append(entries, e)
	}
}
