// Package model is a model of containerd's interface of snapshots, without pool and locks.
// It follows the operations that a test performs. It says what clients see then, which kind
// of error an operation returns, and what clients may see after a crash.
//
// The model has templates, to know which layers are shared and what a cleanup destroys. It
// knows the names that containerd generates. It must not know the snapshotter: a test that
// compares both finds the errors of either.
package model
