package zfsfake

import (
	"errors"
	"io"
	"os"
)

// The operations on a File. They are no calls of the pool, and Step is one of any kind.
const (
	Step     Kind = "step"
	Write    Kind = "write"
	Truncate Kind = "truncate"
	Sync     Kind = "sync"
)

// file is what a File is made of.
type file interface {
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Datasync() error
}

// File is an open file in a file system of the pool. What is written to it is durable after a
// sync, and with the next transaction. A crash can leave less of it, see LosesWrites.
type File struct {
	file
	pool    *Pool
	changed bool
	size    int64
	durable int64 // the size that a crash leaves at least
}

// LosesWrites makes a crash lose what was written to files and is not durable. Without it a
// crash loses half of it, so that an entry can be torn.
func LosesWrites(p *Pool) { p.losesWrites = true }

// File returns a file in the pool. It has what f has, which is durable.
func (p *Pool) File(f file) *File {
	p.mu.Lock()
	defer p.mu.Unlock()
	opened := &File{file: f, pool: p}
	p.files = append(p.files, opened)
	return opened
}

func (f *File) step(kind Kind, fn func() error) error {
	return f.pool.between(append(eachOf(Step, ""), operation{kind, ""}), func() error {
		f.pool.mu.Lock()
		defer f.pool.mu.Unlock()
		if f.pool.crashed {
			return ErrCrashed
		}
		return fn()
	})
}

// begin is called at the first change, which is at the end of what the file had when it was
// opened, or cuts that.
func (f *File) begin(at int64) {
	if !f.changed {
		f.changed, f.size, f.durable = true, at, at
	}
}

// WriteAt appends to the file.
func (f *File) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.step(Write, func() error {
		f.begin(at)
		n, err = f.file.WriteAt(b, at)
		f.size = at + int64(n)
		return err
	})
	return n, err
}

// Truncate cuts the file.
func (f *File) Truncate(size int64) error {
	return f.step(Truncate, func() error {
		f.begin(size)
		f.size, f.durable = size, min(f.durable, size)
		return f.file.Truncate(size)
	})
}

// Datasync makes the file durable.
func (f *File) Datasync() error {
	return f.step(Sync, func() error {
		f.durable = f.size
		return nil
	})
}

// crash cuts the file as a crash does. The caller holds the pool's mutex.
func (f *File) crash(loses bool) {
	if f.size <= f.durable {
		return
	}
	size := f.durable
	if !loses {
		size += (f.size - f.durable) / 2
	}
	if err := f.file.Truncate(size); err != nil && !errors.Is(err, os.ErrClosed) {
		f.pool.tb.Errorf("cut of a file: %v", err)
	}
}
