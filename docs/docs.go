// Package docs has the documents that tests follow as written.
package docs

import _ "embed"

// Clients is clients.md.
//
//go:embed clients.md
var Clients string

// ZFS is zfs.md.
//
//go:embed zfs.md
var ZFS string
