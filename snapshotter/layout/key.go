package layout

import (
	"regexp"
	"strconv"
)

var (
	// containerd's metadata store passes "<namespace>/<number>/<client's key>".
	namespaced = regexp.MustCompile(`^([^/]+)/[0-9]+/((?s).+)$`)
	extraction = regexp.MustCompile(`^extract-\S+ (sha256:[0-9a-f]{64})$`)
)

// ClientName returns the part of a name or key that containerd's client chose. A name
// without containerd's prefix is returned unchanged.
func ClientName(name string) string {
	if m := namespaced.FindStringSubmatch(name); m != nil {
		return m[2]
	}
	return name
}

// Namespace returns the containerd namespace of a name or key, or "".
func Namespace(name string) string {
	if m := namespaced.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

// ExtractTarget returns the chain ID in an extraction key: "extract-<nanos>-<random>
// <chain ID>".
func ExtractTarget(clientKey string) (chain string, ok bool) {
	if m := extraction.FindStringSubmatch(clientKey); m != nil {
		return m[1], true
	}
	return "", false
}

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
