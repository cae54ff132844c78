// Package ledger keeps what a load noted before the power of its machine was cut. Its Book
// follows the notes with a model of the snapshotter, which decides what may be found after
// the cut.
//
// The load notes what it asks for before it asks, and what it got. Nothing but the notes is
// left of a machine. A note that was lost only makes the Book expect less.
package ledger
