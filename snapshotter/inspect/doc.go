// Package inspect describes a base from a listing of its datasets: their states and the
// space that they use.
//
// It knows records, states and listings. It changes nothing and needs no daemon. It must
// not know the index, the journal and what a running snapshotter does.
package inspect
