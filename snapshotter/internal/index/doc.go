// Package index has the content of a base in memory: the snapshots with their records and
// templates, the garbage, and what is under way.
//
// It is pure: it calls no pool, starts no goroutine, and gets the time as an argument. It
// knows records, the layout of a base and the tree of package space. It must not know what
// is mounted, what the journal holds, and how anything is destroyed. All methods are safe for
// concurrent use, except those that build an index.
package index
