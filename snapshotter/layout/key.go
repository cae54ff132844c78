package layout

import "regexp"

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
