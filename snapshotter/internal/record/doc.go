// Package record encodes what zfstpl stores in user properties of a dataset: the records of
// snapshots, and the provenance and the last use of a template.
//
// It knows containerd's snapshots.Info, the names of datasets (package layout) and listings
// and ops of package zfs. It is pure: it must not know the pool, the index, the clock or
// what a record means for its dataset (package state).
package record
