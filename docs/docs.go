// Package docs embeds the documents that the integration tests compare with the code.
package docs

import _ "embed"

// Clients is the text of clients.md.
//
//go:embed clients.md
var Clients string

// ZFS is the text of zfs.md.
//
//go:embed zfs.md
var ZFS string
