package layout

import (
	"regexp"
	"strconv"
	"strings"
)

// layerName allows namespaces as containerd allows them and numbers as containerd
// prints them. A name that only looks similar is a client's.
var layerName = regexp.MustCompile(`^([A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*)/([1-9][0-9]*)/(sha256:[0-9a-f]{64})$`)

// maxNamespace is the length of the longest namespace that containerd allows.
const maxNamespace = 76

// ParseLayerName returns the parts of containerd's name of a committed image layer,
// "<namespace>/<number>/<chain ID>", and reports whether name has exactly this form.
func ParseLayerName(name string) (namespace, chain string, ok bool) {
	m := layerName.FindStringSubmatch(name)
	if m == nil || len(m[1]) > maxNamespace {
		return "", "", false
	}
	if _, err := strconv.ParseUint(m[2], 10, 64); err != nil {
		return "", "", false
	}
	return m[1], m[3], true
}

// IsLayerName reports whether name is containerd's name of a committed image layer.
func IsLayerName(name string) bool {
	_, _, ok := ParseLayerName(name)
	return ok
}

// IsOwned reports whether t is a layer of one namespace.
func (t Template) IsOwned() bool { return strings.HasPrefix(t.Name(), ownedPrefix) }
