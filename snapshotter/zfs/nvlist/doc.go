// Package nvlist encodes and decodes lists of named, typed values as OpenZFS
// exchanges them with its kernel module: the native encoding of a
// little-endian machine. It does not know what the lists mean.
//
// [List] is a list in memory; [Append] and [Decode] convert it. [Reader] reads
// encoded bytes in place and allocates nothing, for callers that need a few values
// of a large list.
//
// # Format
//
// All numbers are little-endian; align8 rounds up to a multiple of eight.
//
//	message   u8 encoding (0: native), u8 endian (1: little), 2 bytes 0,
//	          i32 version (0), u32 flags (1: names are unique), pairs
//	pairs     pair*, i32 0
//	pair      i32 size, i16 name size with its NUL, i16 0, i32 elements,
//	          i32 type, name and NUL up to align8(16 + name size),
//	          value up to size, then embedded pairs
//
// size counts the pair's own bytes and is a multiple of eight. The pairs of an
// embedded list follow the pair that has it, and size does not count them. Values
// by type:
//
//	flag          nothing; 0 elements
//	number        its bytes, padded to 8; a boolean is an i32 of 0 or 1
//	string        its bytes and a NUL, padded
//	array         the numbers side by side, padded once at the end
//	string array  8 zero bytes for each (a pointer in the kernel's memory),
//	              then each string with its NUL, padded once at the end
//	list          24 bytes: i32 version, u32 flags, 12+4 bytes that the kernel
//	              uses; embedded: pairs
//	list array    8 zero bytes and 24 as above for each (all pointers first);
//	              embedded: pairs for each
//
// # Hostile input
//
// Decoding never panics. It refuses what the kernel's decoder refuses, and lists
// that are nested deeper than [MaxDepth]. It compares the number of elements with
// the size of the input before it allocates, so that memory is bounded by a small
// multiple of the input.
package nvlist
