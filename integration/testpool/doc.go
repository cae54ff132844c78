// Package testpool gives tests a pool of their own: a file in a temporary
// directory, imported nowhere else, gone afterwards. It touches no other pool.
//
// A test asks for a [Base]; when the test ends, the invariants of the design
// are checked on it. Its datasets go with the pool.
package testpool
