// Package mounts keeps file systems mounted in one directory, each at
// <directory>/<id>, where clients bind them.
//
// The directory is not part of a pool, so that a full pool or 'zfs unmount' does
// not affect it, and only root can enter it. The kernel keeps the mounts when
// this process ends, and the next process finds them.
//
// The package identifies what is mounted at a path by the kernel's mount IDs and
// file system IDs. It does not know records and does not decide what is mounted.
package mounts
