// Package mounts keeps file systems mounted in one directory, each at
// <directory>/<id>, where clients bind them.
//
// The directory is not part of a pool, so that a full pool or 'zfs unmount' does
// not affect it, and only root can enter it. The kernel keeps the mounts when
// this process ends, and the next process finds them.
//
// Set adds the mounts of templates with views, which are in no mount namespace.
//
// The package identifies what is mounted at a path by the kernel's mount IDs and
// file system IDs. It must not know records and the index, and does
// not decide what is mounted.
package mounts
