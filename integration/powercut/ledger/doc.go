// Package ledger keeps what a load said before its machine's power was cut,
// and decides what may be found after it: for each name of a snapshot, what may
// stand under it and whether nothing may.
//
// The load says what it is about to ask for, asks, and says what it got.
// The notes are all there is: the machine that wrote them is gone. A note that
// was lost only makes the ledger expect less.
package ledger
