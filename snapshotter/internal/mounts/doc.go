// Package mounts keeps file systems mounted in one directory, where clients
// bind them: each at <directory>/<id>.
//
// The directory is no part of any pool, so that neither a full pool nor
// 'zfs unmount' is in the way, and it is open to root alone. The kernel keeps
// the mounts when this process ends, and the next one finds them again.
//
// The package decides by the kernel's mount IDs and file system IDs what is
// mounted at a path. It knows nothing of records and does not decide what is to
// be mounted.
package mounts
