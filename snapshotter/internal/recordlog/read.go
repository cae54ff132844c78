package recordlog

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// Name is the name of the log in the root directory of a base.
const Name = "log"

// maxFile limits the bytes of a log that are read.
const maxFile = 1 << 30

// Contents is what a log holds.
type Contents struct {
	ID      ID
	Start   uint64 // the number before the first entry
	Entries []Entry

	size int64 // up to the end of the last complete entry
	torn bool  // the file is longer than size
}

// Last returns the number of the last entry.
func (c *Contents) Last() uint64 { return c.Start + uint64(len(c.Entries)) }

// File is the open file of a log.
type File interface {
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Datasync makes the contents and the size of the file durable.
	Datasync() error
}

// Dir is the root directory of a base.
type Dir struct {
	Root *os.Root
	// Wrap replaces the file of a log in tests, if it is not nil.
	Wrap func(File) File
}

// open opens a file for writing.
func (d Dir) open(name string, flags int) (File, error) {
	file, err := d.Root.OpenFile(name, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	if d.Wrap != nil {
		return d.Wrap(osFile{file}), nil
	}
	return osFile{file}, nil
}

// osFile is a file of the operating system.
type osFile struct{ *os.File }

func (f osFile) Datasync() error { return datasync(f.File) }

// Read reads the log of base. Another process may append to it meanwhile. The error is one of package fs if the file cannot be read, and wraps ErrDamaged
// if an entry is damaged.
func (d Dir) Read(base layout.Base) (*Contents, error) {
	file, err := d.Root.Open(Name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%w: the file has more than %d bytes", ErrDamaged, maxFile)
	}
	return decode(b, base)
}

func decode(b []byte, base layout.Base) (*Contents, error) {
	c := &Contents{}
	var err error
	if c.ID, c.Start, err = decodeHeader(b); err != nil {
		return nil, err
	}
	for at := headerSize; ; {
		c.size = int64(at)
		if at == len(b) {
			return c, nil
		}
		e, size, err := decodeEntry(b[at:], base)
		if errors.Is(err, errTorn) {
			c.torn = true
			return c, nil
		}
		if err == nil && e.Seq != c.Last()+1 {
			err = fmt.Errorf("%w: entry %d follows entry %d", ErrDamaged, e.Seq, c.Last())
		}
		if err != nil {
			return nil, fmt.Errorf("%w (at byte %d)", err, at)
		}
		c.Entries = append(c.Entries, e)
		at += size
	}
}
