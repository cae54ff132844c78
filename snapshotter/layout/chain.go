package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// ChainID is the chain ID of a layer on the layers that parent names: OCI's rule. The
// diff ID is the digest of the uncompressed layer. The lowest layer has the parent "",
// and its chain ID is its diff ID.
func ChainID(parent, diffID string) string {
	if parent == "" {
		return diffID
	}
	sum := sha256.Sum256([]byte(parent + " " + diffID))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ChainID is the chain ID that t is named by: "" of the empty template, on which the
// lowest layer stands. It reports whether t has one; an opaque template has none.
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
