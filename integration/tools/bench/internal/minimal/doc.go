// Package minimal has the least that a proxy snapshotter can do. The bench measures it
// behind containerd, because the time of a proxy snapshotter contains the time of the proxy
// itself.
//
// [Empty] does nothing and returns a bind mount. [Logging] also appends a record to a file
// and waits until it is on disk. Neither is of use to a container.
package minimal
