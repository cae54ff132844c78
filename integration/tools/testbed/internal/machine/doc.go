// Package machine runs one guest in QEMU: its disks, its initramfs, its
// console, the link to its agent, and every way in which it can end.
//
// A guest has no state of its own. Its root image is opened read-only with a
// private overlay that goes away with QEMU, so any number of guests may run
// from one image; only an extra disk that was asked to be kept outlives it.
// QEMU is killed when this program ends, however it ends.
package machine
