// Package recordlog has the log of a base: a file in the base's own file system with the
// changes of records that are durable before the properties of the datasets have them.
//
// An append to a file is durable after one commit of the ZFS intent log, a property only after
// a transaction group. The pool stays the only database: a background writer copies the
// entries into properties, and the log is truncated when the properties have all of them.
//
// # File
//
// The file "log" has a header, and then entries without gaps. Numbers are big-endian.
//
//	header: magic (8 bytes), version (4), ID of the log (8), sequence number before the
//	        first entry (8), CRC-32C of the bytes before (4)
//	entry:  length of the body (4), sequence number (8), CRC-32C of the body (4), CRC-32C of
//	        the bytes before (4); then the body
//
// The body is a JSON array of changes of properties, with names relative to the base, so that
// a base that was renamed or copied keeps its log. A file that ends inside an entry is torn: a
// crash interrupted the write of an entry that was not acknowledged, and the log ends before
// it. An entry that is complete and has a wrong checksum is an error, also if it is the last.
//
// # Position
//
// The base's property PositionProperty names the ID of its log and a sequence number that the
// log has reached at least. A log that is missing, has another ID or ends before that number
// does not belong to this state of the pool, see Check.
//
// # Replay
//
// Replay applies the entries to a listing of the base. It is idempotent: the last entry for a
// property wins, and an entry that the properties have already changes nothing. A transaction
// that changes properties for which the file has older entries also sets AppliedProperty of
// the dataset, and Replay skips these entries.
//
// The package knows ops of package zfs and the layout. It must not know what a record means,
// and has no goroutine.
package recordlog
