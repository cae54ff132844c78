// Package wire is what the host and the guest agent say to each other: frames
// on a byte stream, JSON messages in some of them, and tar archives for files
// in both directions.
//
// It knows nothing of QEMU, of the guest's devices or of ZFS, and it trusts
// neither side: a frame may be cut short or nonsense, and an archive may try
// to leave the directory it is unpacked into.
package wire
