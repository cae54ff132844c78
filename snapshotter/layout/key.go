package layout

import "regexp"

var (
	// containerd's metadata store hands a backend "<namespace>/<number>/<client's key>".
	namespaced = regexp.MustCompile(`^([^/]+)/[0-9]+/((?s).+)$`)
	extraction = regexp.MustCompile(`^extract-\S+ (sha256:[0-9a-f]{64})$`)
)

// ClientName is the part of a name or key that containerd's client chose. A
// name without containerd's prefix is the client's as it stands.
func ClientName(name string) string {
	if m := namespaced.FindStringSubmatch(name); m != nil {
		return m[2]
	}
	return name
}

// Namespace is the containerd namespace a name or key belongs to, or "".
func Namespace(name string) string {
	if m := namespaced.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

// ExtractTarget is the chain ID that an extraction key names as its target:
// "extract-<nanos>-<random> <chain ID>".
func ExtractTarget(clientKey string) (chain string, ok bool) {
	if m := extraction.FindStringSubmatch(clientKey); m != nil {
		return m[1], true
	}
	return "", false
}
