// Package docs has the documents that tests follow as written.
package docs

import _ "embed"

// ZFS is zfs.md.
//
//go:embed zfs.md
var ZFS string
