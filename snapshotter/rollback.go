package snapshotter

import (
	"context"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
)

// A killed command or an interrupted call may have applied all, none or the first ops of
// its list, and does not report which. The operation fails, so it is rolled back with
// idempotent steps: removing a property that does not exist succeeds, and so does setting
// a property again. The steps are part of the journal, which writes them in order and
// retries a failed write.

// rollBackCreate removes what may exist of a new record and, for an active one, of its
// clone.
func (s *Snapshotter) rollBackCreate(r *index.Entry) {
	if r.Info.Kind == snapshots.KindActive {
		// If the clone does not exist, the destroy has no effect.
		s.index.AddGarbage(r.Dataset, r.Template, time.Now())
	}
	s.journal.AppendRepair(r.Clear())
}

// rollBackUpdate removes what may exist of an update. It writes the old record again
// before it removes the new one.
func (s *Snapshotter) rollBackUpdate(old, updated *index.Entry) error {
	again, err := old.Rewrite()
	if err != nil {
		return err
	}
	s.journal.AppendRepair(append(again, updated.Clear()...))
	return nil
}

// repairTimeout limits how long a failed operation waits until its rollback is in the
// pool.
const repairTimeout = 5 * time.Second

// rollBackDiscard restores the record of a runtime. It waits until the pool has the record,
// because the caller continues to write to the snapshot: if the machine crashed before, the
// next start would destroy that snapshot. If the write fails or takes longer than
// repairTimeout, the journal tries it again.
func (s *Snapshotter) rollBackDiscard(ctx context.Context, active *index.Entry) error {
	again, err := active.Rewrite()
	if err != nil {
		return err
	}
	s.journal.AppendRepair(again)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.journal.Barrier(context.WithoutCancel(ctx)) // the journal logs its own failures
	}()
	select {
	case <-done:
	case <-time.After(repairTimeout): // a call in the kernel ignores its context
	}
	return nil
}
