package diff

import "sync"

// contentSize is how much of a file is read at once, in bytes.
const contentSize = 256 << 10

// The buffers are pooled: a comparison reads many directories and files.
var (
	direntBuffers  = pool(64 << 10)
	contentBuffers = pool(contentSize)
)

func pool(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}
