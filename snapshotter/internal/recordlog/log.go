package recordlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// freshName is the name of a file that is about to become the log. A crash can leave it.
const freshName = Name + ".new"

// Log appends to the log of a base. Its methods are not safe for concurrent use. After a method has failed, Broken says whether the log can be used
// further.
type Log struct {
	dir    Dir
	base   layout.Base
	file   File
	id     ID
	last   uint64 // number of the last entry
	size   int64
	broken bool
}

// Create creates an empty log, in place of any other file of its name. It is durable when
// Create returns.
func (d Dir) Create(base layout.Base) (*Log, error) {
	l := &Log{dir: d, base: base, id: ID(time.Now().UnixMicro())}
	return l, l.replace()
}

// Open opens the log that Read returned, for its owner. It removes an entry at the end that is
// torn.
func (d Dir) Open(base layout.Base, c *Contents) (*Log, error) {
	file, err := d.open(Name, 0)
	if err != nil {
		return nil, err
	}
	if c.torn {
		if err := file.Truncate(c.size); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	return &Log{dir: d, base: base, file: file, id: c.ID, last: c.Last(), size: c.size}, nil
}

// Close closes the file.
func (l *Log) Close() error { return l.file.Close() }

// Position returns the end of the log.
func (l *Log) Position() Position { return Position{l.id, l.last} }

// Broken reports whether a failure left the file in an unknown state. Nothing more is written
// to it until Truncate succeeds.
func (l *Log) Broken() bool { return l.broken }

// Write appends an entry for each group of ops, all or none of them, and returns the number of
// the first one. They are durable after Sync, or with any later transaction group.
func (l *Log) Write(groups [][]zfs.Op) (first uint64, err error) {
	if l.broken {
		return 0, errors.New("an earlier write or sync of the log failed")
	}
	var b []byte
	for i, ops := range groups {
		if b, err = appendEntry(b, l.base, Entry{l.last + 1 + uint64(i), ops}); err != nil {
			return 0, err
		}
	}
	if _, err := l.file.WriteAt(b, l.size); err != nil {
		// A part of it may be in the file. An entry must not follow that.
		if cutErr := l.file.Truncate(l.size); cutErr != nil {
			l.broken = true
			err = errors.Join(err, cutErr)
		}
		return 0, err
	}
	first = l.last + 1
	l.last += uint64(len(groups))
	l.size += int64(len(b))
	return first, nil
}

// Sync makes what was written durable. If it fails, it is not known what is.
func (l *Log) Sync() error {
	if err := l.file.Datasync(); err != nil {
		return fmt.Errorf("sync of the log: %w", err)
	}
	return nil
}

// Break makes the log unusable until Truncate succeeds.
func (l *Log) Break() { l.broken = true }

// Truncate removes all entries. The caller has made sure that the properties have them. The
// new file takes the place of the old one atomically, because a log that ended before the
// position in the base's property would not belong to the pool.
func (l *Log) Truncate() error {
	if l.size == int64(headerSize) && !l.broken {
		return nil
	}
	return l.replace()
}

// replace makes an empty file the log. Its entries begin after l.last.
func (l *Log) replace() (err error) {
	if err := l.dir.Root.Remove(freshName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := l.dir.open(freshName, os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(encodeHeader(l.id, l.last), 0)
	if err == nil {
		err = file.Datasync()
	}
	if err == nil {
		// The rename is durable before anything that is written into the new file later: a
		// commit of the intent log writes the changes of names first.
		err = l.dir.Root.Rename(freshName, Name)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if l.file != nil {
		err = l.file.Close()
	}
	l.file, l.size, l.broken = file, int64(headerSize), false
	return err
}
