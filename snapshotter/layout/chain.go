package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ChainID returns the chain ID of a layer on the chain parent, by the rule of OCI.
// diffID is the digest of the uncompressed layer. The lowest layer has the parent "",
// and its chain ID is its diff ID.
func ChainID(parent, diffID string) string {
	if parent == "" {
		return diffID
	}
	sum := sha256.Sum256([]byte(parent + " " + diffID))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ChainID returns the chain ID in the name of t, and whether t has one. That of the
// empty template, the parent of the lowest layer, is "". An opaque template has none.
func (t Template) ChainID() (chain string, ok bool) {
	name := t.Name()
	switch {
	case t.IsEmpty():
		return "", true
	case owned.MatchString(name):
		return name[strings.Index(name, "sha256:"):], true
	}
	return name, IsChainID(name)
}
