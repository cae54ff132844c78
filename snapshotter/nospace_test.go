package snapshotter

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/model"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// Without space at any step of an operation, once or from then on, the operation succeeds or
// has not happened, also after a restart. With space again it succeeds, and nothing is left.
func TestNoSpaceAtAStepLeavesStateBeforeOrAfter(t *testing.T) {
	t.Parallel()
	for what, c := range crashOperations {
		for _, mode := range []string{"atomic", "with a log", "with a log, in steps", "with ready runtimes"} {
			t.Run(what+" "+mode, func(t *testing.T) {
				t.Parallel()
				prepare := func() *fixture {
					s := newFixture(t, crashModes[mode], keepCached(0))
					c.before(s)
					s.makeReadyIfSpace()
					return s
				}
				whole := prepare()
				before := whole.visible()
				require.NoError(t, c.do(whole))
				after := whole.visible()
				do, removes := c.do, strings.HasPrefix(what, "remove")
				if removes { // it is done in memory; the journal tries it again
					before = after
				}
				for _, again := range []bool{false, true} {
					for cut := range zfsfake.EachOrNone(t, zfsfake.Before(zfsfake.Transaction, zfsfake.Step)) {
						s := prepare()
						err := s.withoutSpaceAt(cut, again, do)
						want := after
						if err != nil {
							want = before
							assert.True(t, errdefs.IsResourceExhausted(err) || errors.Is(err, zfs.ErrNoSpace), "no space %s: %v", cut, err)
						}
						require.Empty(t, model.Differences(want, s.visible()), "no space %s, and later %v: %v", cut, again, err)
						if err != nil && !removes {
							require.NoError(t, do(s), "with space again")
						}
						require.NoError(t, s.sn.journal.Flush(s.ctx))
						s.restart()
						require.Empty(t, model.Differences(after, s.visible()), "no space %s, and later %v", cut, again)
						s.requireInvariants()
					}
				}
			})
		}
	}
}

// withoutSpaceAt runs do without space at a cut, and if again is set, at all later ones.
func (s *fixture) withoutSpaceAt(cut *zfsfake.Cut, again bool, do func(*fixture) error) error {
	s.Helper()
	var full atomic.Bool
	noSpace := func(reached bool) zfsfake.Failure {
		return zfsfake.Do(func() error {
			full.CompareAndSwap(false, reached && again)
			if !reached && !full.Load() {
				return nil
			}
			return errors.Join(zfsfake.Error("apply", s.base.String(), zfs.ErrNoSpace), unix.ENOSPC)
		})
	}
	defer s.pool.FailAt(cut.Point, noSpace(true))()
	defer s.pool.FailAt(zfsfake.Before(zfsfake.Apply, zfsfake.Write), noSpace(false), zfsfake.Optional())()
	return do(s)
}
