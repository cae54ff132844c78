// Package contender is what the bench measures: ways to hold snapshots, all
// behind one interface, so that none is asked for anything but what the others
// are asked for too.
//
// [Through] is a snapshotter behind containerd, or behind a socket of its own;
// [Floor] is the bare calls to ZFS that no snapshotter can do without.
package contender
