package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// renameAside renames the snapshot that has key, if it is active or a view and key has
// containerd's form. containerd numbers its keys by a sequence in its database, so it uses a
// number twice only if the database is new or older than the pool. containerd does not know
// the old snapshot then. Its next garbage collection removes the snapshot under any name,
// and until then nothing is lost. A key without a number is a client's own and stays.
//
// The caller holds the lock of key.
func (s *Snapshotter) renameAside(ctx context.Context, key string) error {
	old := s.index.RenameCandidate(key)
	if old == nil {
		return nil
	}
	r := *old
	r.ID, r.Seq = layout.NewID(), s.index.Next()
	r.Info.Name = key + "-unknown-to-containerd-" + r.ID.String()
	r.Info.Updated = time.Now().UTC()
	ops, err := r.Set()
	if err != nil {
		return err
	}
	doing := fmt.Sprintf("rename of %q, which containerd does not know", key)
	if err := s.barrier(ctx); err != nil {
		return errkind.Wrap(doing, err)
	}
	if err := s.apply(ctx, append(ops, old.Clear()...)...); err != nil {
		if errkind.IsAmbiguous(err) {
			err = errors.Join(err, s.rollBackUpdate(old, &r))
		}
		return errkind.Wrap(doing, err)
	}
	s.index.Rename(old, &r)
	log.G(ctx).WithField("key", key).WithField("name", r.Info.Name).WithField("dataset", r.Dataset).
		Warn("renamed snapshot that is unknown to containerd")
	return nil
}
