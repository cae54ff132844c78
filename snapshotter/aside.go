package snapshotter

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/log"

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
	if err := s.replaceRecord(ctx, fmt.Sprintf("rename of %q, which containerd does not know", key), old, &r); err != nil {
		return err
	}
	s.index.Rename(old, &r)
	log.G(ctx).WithField("key", key).WithField("name", r.Info.Name).WithField("dataset", r.Dataset).
		Warn("renamed snapshot that is unknown to containerd")
	return nil
}
