package diff

import (
	"encoding/binary"
	"strings"
)

// The extended attributes of POSIX access control lists (ACLs).
const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"
)

// isLayerAttribute reports whether a layer holds an extended attribute: user
// attributes, POSIX ACLs, capabilities and signatures of content. Labels of security
// modules describe what this host allows and not the file, and an archive may not set
// trusted attributes. A name with "=" cannot be written, because a tar record ends the
// name at the first "=".
func isLayerAttribute(name string) bool {
	switch name {
	case "security.capability", "security.ima",
		accessACL, defaultACL:
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.Contains(name, "=")
}

// withExplicitACLs adds trivial ACLs to the records of a node where it has none, so that
// it inherits nothing from its directory when the layer is applied.
func withExplicitACLs(records map[string]string, n node) map[string]string {
	if n.is(typeLink) {
		return records
	}
	if records == nil {
		records = make(map[string]string, 2)
	}
	if _, ok := records[xattrKey+accessACL]; !ok {
		records[xattrKey+accessACL] = modeAsACL(n.mode)
	}
	if _, ok := records[xattrKey+defaultACL]; !ok && n.isDir() {
		records[xattrKey+defaultACL] = string(aclHeader)
	}
	return records
}

// aclHeader is the version that begins an ACL. An ACL without entries is the same as
// none.
var aclHeader = []byte{2, 0, 0, 0}

// modeAsACL returns the ACL that is equivalent to a mode. The kernel keeps the mode
// and drops the ACL.
func modeAsACL(mode uint32) string {
	const owner, group, other, noID = 1, 4, 0x20, 0xffffffff
	b := append([]byte(nil), aclHeader...)
	for _, e := range []struct{ tag, perm uint32 }{{owner, mode >> 6}, {group, mode >> 3}, {other, mode}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e.tag))
		b = binary.LittleEndian.AppendUint16(b, uint16(e.perm&7))
		b = binary.LittleEndian.AppendUint32(b, noID)
	}
	return string(b)
}
