package diff

import "sync"

// Buffers are used again: a comparison reads many directories and files.
var (
	direntBuffers  = pool(64 << 10)
	contentBuffers = pool(256 << 10)
)

func pool(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}
