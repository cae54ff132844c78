package zfsfake

import (
	"context"
	"os"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// What the differ needs of a pool. Content is a string here and no tree of files, so these
// methods return ErrUnavailable, except for a file system with a directory.

// AttachWritable opens the directory of a file system.
func (p *Pool) AttachWritable(_ context.Context, name string) (*os.File, error) {
	return p.open(AttachWritable, name)
}

// AttachRoot opens the directory of the file system of a snapshot.
func (p *Pool) AttachRoot(_ context.Context, name string) (*os.File, error) {
	return p.open(AttachRoot, name)
}

func (p *Pool) open(kind Kind, name string) (root *os.File, err error) {
	err = p.call(kind, []string{name}, func() error {
		return p.read(func(s *State) error {
			dataset, _, _ := strings.Cut(name, "@")
			fs, ok := s.FS[dataset]
			switch {
			case !ok:
				return Error("mount", name, zfs.ErrNotFound)
			case fs.Dir == "":
				return Error("mount", name, zfs.ErrUnavailable)
			}
			root, err = os.Open(fs.Dir)
			return err
		})
	})
	return root, err
}

// ChangedObjects returns ErrUnavailable, as the command client does.
func (p *Pool) ChangedObjects(_ context.Context, _, to string) (changed []zfs.ObjectRange, err error) {
	return nil, p.call(ChangedObjects, []string{to}, func() error { return Error("diff", to, zfs.ErrUnavailable) })
}

// Object returns ErrUnavailable.
func (p *Pool) Object(_ context.Context, snapshot string, _ uint64) (zfs.Object, error) {
	return zfs.Object{}, Error("diff", snapshot, zfs.ErrUnavailable)
}

// TakeTemporary returns ErrUnavailable.
func (p *Pool) TakeTemporary(_ context.Context, name string) (*zfs.TemporarySnapshot, error) {
	return nil, Error("snapshot", name, zfs.ErrUnavailable)
}
