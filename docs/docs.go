// Package docs embeds the documents that tests compare with the code.
package docs

import _ "embed"

// Clients is the text of clients.md.
//
//go:embed clients.md
var Clients string

// Messages is the text of messages.md.
//
//go:embed messages.md
var Messages string

// ZFS is the text of zfs.md.
//
//go:embed zfs.md
var ZFS string
