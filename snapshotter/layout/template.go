package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

const (
	emptyName    = "empty"
	opaquePrefix = "opaque-"
	ownedPrefix  = "ns-"
	ownerDigits  = 16
)

var (
	owned   = regexp.MustCompile(`^ns-[0-9a-f]{16}-sha256:[0-9a-f]{64}$`)
	chainID = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	id      = regexp.MustCompile(`^[0-9a-f]{16}$`)
)

// IsChainID reports whether s has the exact form of an OCI chain ID.
func IsChainID(s string) bool { return chainID.MatchString(s) }

// Template is the name of a dataset under storage.
type Template struct{ dataset string }

// Empty returns the template without content that every chain starts from.
func (b Base) Empty() Template { return Template{b.Storage() + "/" + emptyName} }

// Layer returns the template of a layer with the given chain ID that all namespaces
// share.
func (b Base) Layer(chain string) (Template, error) { return b.layer("", chain) }

// OwnLayer returns the template of a layer with the given chain ID that belongs to one
// containerd namespace. The namespace is hashed, because a client chooses it.
func (b Base) OwnLayer(namespace, chain string) (Template, error) {
	return b.layer(ownerPrefix(namespace), chain)
}

func (b Base) layer(prefix, chain string) (Template, error) {
	if !IsChainID(chain) {
		return Template{}, fmt.Errorf("%q is not a chain ID (sha256: and 64 hexadecimal digits)", chain)
	}
	return Template{b.Storage() + "/" + prefix + chain}, nil
}

// ownerPrefix returns the prefix of the names of a namespace's own templates.
func ownerPrefix(namespace string) string {
	sum := sha256.Sum256([]byte(namespace))
	return ownedPrefix + hex.EncodeToString(sum[:])[:ownerDigits] + "-"
}

// Opaque returns the template of a commit that is not an image layer.
func (b Base) Opaque(id ID) Template { return Template{b.Storage() + "/" + opaquePrefix + id.String()} }

// ParseTemplate returns the template of a dataset and reports whether it is one. A
// dataset under storage with any other name is foreign.
func (b Base) ParseTemplate(dataset string) (Template, bool) {
	name, ok := strings.CutPrefix(dataset, b.Storage()+"/")
	if !ok {
		return Template{}, false
	}
	opaqueID, opaque := strings.CutPrefix(name, opaquePrefix)
	if name == emptyName || IsChainID(name) || owned.MatchString(name) || opaque && id.MatchString(opaqueID) {
		return Template{dataset}, true
	}
	return Template{}, false
}

// ParseExtracted returns the template whose @extracted the snapshot is, and reports
// whether there is one.
func (b Base) ParseExtracted(snapshot string) (Template, bool) {
	dataset, ok := strings.CutSuffix(snapshot, "@"+Extracted)
	if !ok {
		return Template{}, false
	}
	return b.ParseTemplate(dataset)
}

// Dataset returns the name of the template's file system.
func (t Template) Dataset() string { return t.dataset }

// Snapshot returns the name of the template's snapshot, which clones are made of and
// views mount.
func (t Template) Snapshot() string { return t.dataset + "@" + Extracted }

// Name returns the last component: a chain ID, "ns-<hash>-<chain ID>", "empty" or
// "opaque-<id>".
func (t Template) Name() string { return t.dataset[strings.LastIndexByte(t.dataset, '/')+1:] }

// IsEmpty reports whether t is the empty template, which is never destroyed.
func (t Template) IsEmpty() bool { return t.Name() == emptyName }

// IsOpaque reports whether t is an opaque template. It cannot be requested again after
// its last record was removed.
func (t Template) IsOpaque() bool { return strings.HasPrefix(t.Name(), opaquePrefix) }

// IsOwned reports whether t is a layer of one namespace.
func (t Template) IsOwned() bool { return strings.HasPrefix(t.Name(), ownedPrefix) }

// OwnedBy reports whether t is a layer of that namespace alone.
func (t Template) OwnedBy(namespace string) bool {
	return strings.HasPrefix(t.Name(), ownerPrefix(namespace))
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
