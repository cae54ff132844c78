package layout

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strings"
)

// maxReadable bounds the readable part of a runtime's name.
const maxReadable = 40

// runtimeName matches the names that Clone returns and no others: foreign datasets
// under runtime are left alone.
var runtimeName = regexp.MustCompile(`^([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*)-([0-9a-f]{16})$`)

// ID makes a name under the base unique: 16 hexadecimal digits.
type ID struct{ digits string }

// NewID returns a random ID.
func NewID() ID {
	var raw [8]byte
	rand.Read(raw[:]) // never fails: crypto/rand aborts the program instead
	return ID{hex.EncodeToString(raw[:])}
}

// ParseID returns s as an ID and reports whether it is one.
func ParseID(s string) (ID, bool) { return ID{s}, id.MatchString(s) }

func (i ID) String() string { return i.digits }

// Clone returns the runtime for a client's key: <readable>-<id>.
func (b Base) Clone(key string, id ID) string {
	return b.Runtime() + "/" + readable(key) + "-" + id.String()
}

// readyPart is the readable part of the names of ready runtimes. readable never returns it.
const readyPart = "ready"

// Ready returns the name of a ready runtime.
func (b Base) Ready(id ID) string { return b.Runtime() + "/" + readyPart + "-" + id.String() }

// IsReadyName reports whether a runtime was made in advance. It may have a record now.
func (b Base) IsReadyName(dataset string) bool {
	id, ok := b.ParseRuntime(dataset)
	return ok && dataset == b.Ready(id)
}

// ParseRuntime returns the ID of a runtime and reports whether dataset is one.
func (b Base) ParseRuntime(dataset string) (ID, bool) {
	name, ok := strings.CutPrefix(dataset, b.Runtime()+"/")
	m := runtimeName.FindStringSubmatch(name)
	if !ok || m == nil || len(m[1]) > maxReadable {
		return ID{}, false
	}
	return ParseID(m[2])
}

// readable reduces a key to a name that people recognise in a listing and ZFS accepts
// anywhere. It need not be unique; the ID after it is.
func readable(key string) string {
	key = ClientName(key)
	// In "extract-<nanos>-<random> <chain ID>" only the chain ID is meaningful to
	// people.
	if chain, ok := ExtractTarget(key); ok {
		key = "extract-" + chain[len("sha256:"):][:12]
	}
	var b strings.Builder
	for i := 0; i < len(key) && b.Len() < maxReadable; i++ {
		if c := key[i]; isLetter(c) || isDigit(c) {
			b.WriteByte(c)
		} else if s := b.String(); s != "" && s[len(s)-1] != '-' {
			b.WriteByte('-')
		}
	}
	switch s := strings.TrimRight(b.String(), "-"); s {
	case "":
		return "snapshot"
	case readyPart:
		return readyPart + "-snapshot"
	default:
		return s
	}
}
