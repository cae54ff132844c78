package layout

import (
	"regexp"
	"strconv"
	"strings"
)

// layerName has namespaces as containerd allows them and numbers as it prints
// them. A name that only looks similar is a client's own.
var layerName = regexp.MustCompile(`^([A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*)/([1-9][0-9]*)/(sha256:[0-9a-f]{64})$`)

// maxNamespace is the longest name of a namespace that containerd allows.
const maxNamespace = 76

// ParseLayerName returns the parts of the name by which containerd knows a committed
// image layer, "<namespace>/<number>/<chain ID>", and reports whether name has exactly
// this form.
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

// IsOwned reports whether t is a layer that belongs to one namespace alone.
func (t Template) IsOwned() bool { return strings.HasPrefix(t.Name(), ownedPrefix) }
