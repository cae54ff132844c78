// Package journal has the changes of records that are not yet in the pool, and writes them in
// batches in the background.
//
// It knows ops of package zfs, their order and their datasets. It must not know what a
// record means, the index, and why an entry was added. All methods of a Journal are safe for
// concurrent use, except that Start and Stop are each called once.
package journal
