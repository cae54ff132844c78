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
func (b Base) Layer(chain string) (Template, error) {
	if !IsChainID(chain) {
		return Template{}, notAChainID(chain)
	}
	return Template{b.Storage() + "/" + chain}, nil
}

// OwnLayer returns the template of a layer with the given chain ID that belongs to one
// containerd namespace. The namespace is hashed, because a client chooses it.
func (b Base) OwnLayer(namespace, chain string) (Template, error) {
	if !IsChainID(chain) {
		return Template{}, notAChainID(chain)
	}
	return Template{b.Storage() + "/" + ownerPrefix(namespace) + chain}, nil
}

// ownerPrefix returns the prefix of the names of a namespace's own templates.
func ownerPrefix(namespace string) string {
	sum := sha256.Sum256([]byte(namespace))
	return ownedPrefix + hex.EncodeToString(sum[:])[:ownerDigits] + "-"
}

func notAChainID(s string) error {
	return fmt.Errorf("%q is not a chain ID (sha256: and 64 hexadecimal digits)", s)
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

// OwnedBy reports whether t is a layer of that namespace alone.
func (t Template) OwnedBy(namespace string) bool {
	return strings.HasPrefix(t.Name(), ownerPrefix(namespace))
}

// IsZero reports whether t is the zero value.
func (t Template) IsZero() bool { return t.dataset == "" }
