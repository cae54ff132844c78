// Package diff says what a file system changed since an earlier snapshot of it,
// and writes that as a layer of an OCI image.
//
// ZFS knows which objects (files and directories, by number) were changed, for
// the cost of what was changed; it does not know their names for certain. So a
// comparison goes through the directories of both snapshots side by side, and
// the numbers tell it where it need not look. Without them it looks everywhere:
// what it finds is the same.
package diff
