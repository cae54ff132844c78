package diff

import (
	"encoding/binary"
	"strings"
)

// POSIX access lists, as attributes.
const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// carried tells which extended attributes a layer holds: what users and POSIX
// access lists say, capabilities, and signatures of content. Labels of the
// host's security modules say what this host allows, not what the file is, and
// trusted ones no archive may set. A tar's record ends a name at the first "=",
// so it cannot say one that has it.
func isLayerAttribute(name string) bool {
	switch name {
	case "security.capability", "security.ima",
		accessACL, defaultACL:
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.Contains(name, "=")
}

// withoutInheritance adds to a node's attributes lists that say nothing, where it
// has none: whoever makes it again does so in a directory that hands one down.
func withExplicitACLs(attributes map[string]string, n node) map[string]string {
	if n.is(typeLink) {
		return attributes
	}
	if attributes == nil {
		attributes = make(map[string]string, 2)
	}
	if _, ok := attributes[accessACL]; !ok {
		attributes[accessACL] = modeAsACL(n.mode)
	}
	if _, ok := attributes[defaultACL]; !ok && n.isDir() {
		attributes[defaultACL] = string(aclHeader)
	}
	return attributes
}

// aclHeader begins a list: the format's version. A list of no entries is none.
var aclHeader = []byte{2, 0, 0, 0}

// modeAsACL answers the list that says no more than a mode. The kernel keeps the
// mode and forgets the list.
func modeAsACL(mode uint32) string {
	const owner, group, other, nobody = 1, 4, 0x20, 0xffffffff
	b := append([]byte(nil), aclHeader...)
	for _, e := range []struct{ tag, perm uint32 }{{owner, mode >> 6}, {group, mode >> 3}, {other, mode}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e.tag))
		b = binary.LittleEndian.AppendUint16(b, uint16(e.perm&7))
		b = binary.LittleEndian.AppendUint32(b, nobody)
	}
	return string(b)
}
