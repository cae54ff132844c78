package layout

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strings"
)

// maxReadable bounds the part of a runtime's name that is there for people.
const maxReadable = 40

// runtimeName is the form of every name that Clone makes, and of no other: a
// dataset somebody else put under runtime is left alone.
var runtimeName = regexp.MustCompile(`^([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*)-([0-9a-f]{16})$`)

// ID is what makes a name under the base unique: 16 hexadecimal digits.
type ID struct{ digits string }

// NewID draws an ID at random.
func NewID() ID {
	var raw [8]byte
	rand.Read(raw[:]) // never fails: crypto/rand ends the program instead
	return ID{hex.EncodeToString(raw[:])}
}

// ParseID answers the ID that s is, and whether it is one.
func ParseID(s string) (ID, bool) { return ID{s}, id.MatchString(s) }

func (i ID) String() string { return i.digits }

// Clone is the runtime made for the client's key: <readable>-<id>.
func (b Base) Clone(key string, id ID) string {
	return b.Runtime() + "/" + readable(key) + "-" + id.String()
}

// ParseRuntime answers the ID of a runtime dataset, and whether it is one.
func (b Base) ParseRuntime(dataset string) (ID, bool) {
	name, ok := strings.CutPrefix(dataset, b.Runtime()+"/")
	m := runtimeName.FindStringSubmatch(name)
	if !ok || m == nil || len(m[1]) > maxReadable {
		return ID{}, false
	}
	return ParseID(m[2])
}

// readable reduces a key to something a person recognises in a listing and ZFS
// accepts anywhere. It need not be unique; the ID behind it is.
func readable(key string) string {
	key = ClientName(key)
	// "extract-<nanos>-<random> <chain ID>": the digits before the blank say
	// nothing to a person, the chain ID's first digits do.
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
	if s := strings.TrimRight(b.String(), "-"); s != "" {
		return s
	}
	return "snapshot"
}
