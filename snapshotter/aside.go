package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// renameAside gives the snapshot that has a key another name. containerd numbers its keys
// by a sequence in its database, so it gives one twice only when its database is new or
// older than the pool. The snapshot that has the key is then one that containerd does
// not know: its next garbage collection removes that under any name, and until then
// nothing is lost. A key without containerd's number is its client's own, and stays.
//
// The caller has the lock of the key.
func (s *Snapshotter) renameAside(ctx context.Context, key string) error {
	old := s.index.renameCandidate(key)
	if old == nil {
		return nil
	}
	r := *old
	r.id, r.seq = layout.NewID(), s.index.next()
	r.info.Name = key + "-unknown-to-containerd-" + r.id.String()
	r.info.Updated = time.Now().UTC()
	ops, err := r.set()
	if err != nil {
		return err
	}
	doing := fmt.Sprintf("new name of %q, which containerd does not know", key)
	if err := s.barrier(ctx); err != nil {
		return poolError(doing, err)
	}
	if err := s.apply(ctx, append(ops, old.clear()...)...); err != nil {
		if ambiguous(err) {
			err = errors.Join(err, s.rollBackUpdate(old, &r))
		}
		return poolError(doing, err)
	}
	s.index.rename(old, &r)
	log.G(ctx).WithField("key", key).WithField("name", r.info.Name).WithField("dataset", r.dataset).
		Warn("snapshot that containerd does not know has a key that containerd gives anew: it is renamed, and goes with the next garbage collection")
	return nil
}

// canRenameAside returns the active snapshot or view that has a key of containerd's, if there
// is one.
func (x *index) renameCandidate(key string) *record {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := x.records[key]
	if r == nil || x.hidden[key] || layout.Namespace(key) == "" || r.info.Kind == snapshots.KindCommitted {
		return nil
	}
	return r
}

// rename puts a record in the place of the one that it was made of.
func (x *index) rename(old, r *record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unlinkRecord(old)
	x.linkRecord(r)
}
