//go:build linux

// Package recipe makes the image the demo and the integration tests run: four
// layers of real Debian packages and of everything a layer can do to the ones
// below it.
//
// Words: a layer's tree is the directory that holds the root file system up to
// and including it; an edit is one change to a tree; the key is the digest of
// the recipe and names the cache entry.
//
// Each layer is made by really changing a copy of the tree below and letting
// containerd's own double walk find out what changed, so the image holds what
// containerd would have written and no layer is a figment of this package. As
// the last step the finished layers are applied to an empty directory and
// compared with the tree they came from.
//
// It knows nothing of ZFS, and leaves neither mounts nor processes behind: what
// needs either runs in namespaces that end with it.
package recipe
