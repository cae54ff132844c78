// Package recovery rebuilds the index of a base from one listing, and finishes or rolls back
// what a crash interrupted.
//
// NewPlan decides and is pure; Plan.Execute changes the pool. The package knows records,
// states and the index. It must not know the running snapshotter, its journal and its locks:
// it runs before other goroutines use the base.
package recovery
