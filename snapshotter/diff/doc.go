// Package diff compares a file system with an earlier snapshot, writes the
// changes as a layer of an OCI image, and unpacks such layers.
//
// ZFS knows which objects (files and directories, by number) have changed, at
// the cost of the changes; it does not know their names for certain. A
// comparison therefore walks the directories of both snapshots side by side, and
// the numbers say which directories it can skip. Without the numbers it reads
// all directories, with the same result.
package diff
