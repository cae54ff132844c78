// Package guest is the first process of the guest: it mounts what a system
// needs, loads ZFS, runs the one command that the host orders, sends back what
// it wrote, and powers off.
//
// It runs from the initramfs as pid 1, so it has no one to report to but the
// link to the host and, until that is open, the kernel's log. When it ends,
// the kernel panics and the host sees the guest die.
package guest
