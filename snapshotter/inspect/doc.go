// Package inspect describes a base from a listing of its datasets: their states, the space
// that they use, and the invariants that they violate.
//
// It knows records, states and listings. It changes nothing and needs no daemon. It must
// not know the index, the journal and what a running snapshotter does.
package inspect
