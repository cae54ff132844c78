// Package recipe builds what a guest is made of, once, into a cache: a Debian
// root, a kernel, OpenZFS modules for it, containerd, and root images.
//
// The work is cut into stages. A stage writes a directory whose name has a
// hash of all that went into it: its own scripts and lists, and the hashes of
// the stages that it uses. So a changed recipe builds what changed and what
// uses that, and a directory that exists is complete: it is written under
// another name, in the cache's "tmp", and renamed at the end. What an
// interrupted build left there is removed by the next one.
//
// One build at a time works on a cache; the lock is held for its whole time.
package recipe
