//go:build linux

// Package tree makes directory trees of which every byte follows from a seed,
// and says in one hash what a tree holds.
package tree
