package layout

// PropertyPrefix is the prefix of the names of all user properties of zfstpl.
const PropertyPrefix = "zfstpl:"

// VersionProperty is the property of a base that holds the version of its layout.
const VersionProperty = PropertyPrefix + "version"

// CleanupProperty is the property of a base that holds its cleanup mark. It is set while a
// cleanup has, or will have, something to destroy. Its value is a CleanupMark. It is written after
// the change that made the cleanup necessary. After a crash in between, the next start
// writes it.
const CleanupProperty = PropertyPrefix + "cleanup"
