// Package reaper destroys what a base no longer needs: garbage, expired templates, and cached
// templates under pressure or when an operation runs out of space. It keeps the cleanup mark
// of the base and its cleanup list.
//
// It knows the index, the policies of package space, and how ZFS destroys. It must not know
// containerd's interface, what a record says, and how snapshots are made.
package reaper
