package diff

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/containerd/log"
)

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

// zeros is what a hole is written as: a tar has no holes.
var zeros = make([]byte, contentSize)

// fileContent reads the content of a file without its holes.
type fileContent struct {
	tree *tree
	rel  string
	size int64
	file *os.File
	data int64        // offset of the next data, as far as it was searched for
	done atomic.Int64 // how much of it was processed
}

// current is the large file that is being processed, for the log. A nil current
// records nothing.
type current struct{ file atomic.Pointer[fileContent] }

// largeFile is the size in bytes from which the log names a file.
const largeFile = 64 << 20

// begin records a file. The returned function ends that.
func (c *current) begin(f *fileContent) (end func()) {
	if c == nil || f.size < largeFile {
		return func() {}
	}
	c.file.Store(f)
	return func() { c.file.Store(nil) }
}

// fields returns the fields of the log for the file, or nil.
func (c *current) fields() log.Fields {
	f := c.file.Load()
	if f == nil {
		return nil
	}
	return log.Fields{"file": f.rel, "size": f.size, "done": f.done.Load()}
}

func (t *tree) content(rel string, size int64) (*fileContent, error) {
	file, err := t.open(rel)
	if err != nil {
		return nil, err
	}
	return &fileContent{tree: t, rel: rel, size: size, file: file}, nil
}

func (f *fileContent) Close() error { return f.file.Close() }

// hole returns the length of the hole at an offset. It does not look for holes in a
// small file, because that costs as much as reading the file.
func (f *fileContent) hole(at int64) int64 {
	if f.size <= contentSize {
		return 0
	}
	if at >= f.data {
		f.data = nextData(f.file, at, f.size)
	}
	return f.data - at
}

// read fills a buffer from an offset.
func (f *fileContent) read(buf []byte, at int64) error {
	_, err := f.file.ReadAt(buf, at)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return f.tree.fail("read", f.rel, err)
	}
	return nil
}

// content writes the content of a file.
func (l *layer) content(rel string, size int64) error {
	file, err := l.tree.content(rel, size)
	if err != nil {
		return err
	}
	defer file.Close()
	defer l.current.begin(file)()
	buf := contentBuffers.Get().(*[]byte)
	defer contentBuffers.Put(buf)
	for at := int64(0); at < size; {
		if l.ctx.Err() != nil {
			return context.Cause(l.ctx)
		}
		piece := zeros[:min(file.hole(at), contentSize)]
		if len(piece) == 0 {
			piece = (*buf)[:min(size-at, contentSize)]
			if err := file.read(piece, at); err != nil {
				return err
			}
		}
		if _, err := l.tar.Write(piece); err != nil {
			return err
		}
		at += int64(len(piece))
		file.done.Store(at)
	}
	return nil
}

// contentDiffers compares two files of the same size. A hole in both is equal.
func (c *comparison) contentDiffers(rel string, size int64) (bool, error) {
	was, err := c.lower.content(rel, size)
	if err != nil {
		return false, err
	}
	defer was.Close()
	is, err := c.upper.content(rel, size)
	if err != nil {
		return false, err
	}
	defer is.Close()
	defer c.current.begin(is)()
	first, second := contentBuffers.Get().(*[]byte), contentBuffers.Get().(*[]byte)
	defer contentBuffers.Put(first)
	defer contentBuffers.Put(second)
	for at := int64(0); at < size; {
		if c.ctx.Err() != nil {
			return false, context.Cause(c.ctx)
		}
		if hole := min(was.hole(at), is.hole(at)); hole > 0 {
			at += hole
			continue
		}
		n := min(size-at, contentSize)
		if err := errors.Join(was.read((*first)[:n], at), is.read((*second)[:n], at)); err != nil {
			return false, err
		}
		if !bytes.Equal((*first)[:n], (*second)[:n]) {
			return true, nil
		}
		at += n
		is.done.Store(at)
	}
	return false, nil
}
