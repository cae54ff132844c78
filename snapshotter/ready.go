package snapshotter

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/internal/supply"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

const (
	// refillBatch is how many ready runtimes one program creates. Everything in a txg waits
	// for them.
	refillBatch = 4
	// lowQuiet is how long no operation has written before ready runtimes are created of which
	// there are few, and lowDelay how long that waits for such a time.
	lowQuiet = 100 * time.Millisecond
	lowDelay = 2 * time.Second
	// enoughQuiet and enoughDelay are the same if there are enough for now: the operations that
	// follow need the processors, and ZFS's transaction.
	enoughQuiet = time.Second
	enoughDelay = 10 * time.Second
	// refillPause is how long after a lack of space no ready runtime is created.
	refillPause = time.Minute
)

// readySupply creates ready runtimes in the background. A ready runtime is a clone that no
// record names. It is in the index of this process only: for every other process, and after a
// restart, it is garbage. So no container gets a runtime that an earlier process has used.
type readySupply struct {
	limit int // the most ready runtimes; 0 for none
	wake  chan struct{}
	quit  chan struct{}
	done  chan struct{}
	// making is full while ready runtimes are made, or while a cleanup prevents that.
	making chan struct{}

	mu        sync.Mutex
	starts    supply.Starts
	templates map[string]*index.Template    // of starts, by dataset
	committed map[*index.Template]time.Time // whose commit made a ready runtime
	pausedTo  time.Time
}

func newReadySupply(limit int) *readySupply {
	return &readySupply{limit: limit, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}), making: make(chan struct{}, 1),
		starts: make(supply.Starts), templates: make(map[string]*index.Template), committed: make(map[*index.Template]time.Time)}
}

// started records that a container was started on a template, and requests a refill. The refill
// waits for quiet anyway, so its goroutine does not run while the caller returns.
func (y *readySupply) started(t *index.Template, now time.Time) {
	if y.limit == 0 || t.IsEmpty() {
		return
	}
	y.mu.Lock()
	y.starts.Add(t.Dataset(), now)
	y.templates[t.Dataset()] = t
	y.mu.Unlock()
	time.AfterFunc(lowQuiet, y.notify)
}

// keep keeps one ready runtime of a template that was committed with it, and has it mounted.
func (y *readySupply) keep(t *index.Template, now time.Time) {
	y.mu.Lock()
	y.committed[t] = now
	y.mu.Unlock()
	y.notify()
}

// kept returns how many ready runtimes of a template stay although no container was started.
func (y *readySupply) kept(t *index.Template, now time.Time) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	if at, ok := y.committed[t]; ok && now.Sub(at) < supply.Unused {
		return 1
	}
	return 0
}

// pause delays the next refill, because there is no space.
func (y *readySupply) pause(now time.Time) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.pausedTo = now.Add(refillPause)
}

// isPaused reports whether there was no space a short time ago.
func (y *readySupply) isPaused(now time.Time) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return now.Before(y.pausedTo)
}

func (y *readySupply) notify() {
	select {
	case y.wake <- struct{}{}:
	default:
	}
}

// pauseMaking waits until no ready runtime is being made, and prevents that until resume.
func (y *readySupply) pauseMaking(ctx context.Context) (resume func(), err error) {
	select {
	case y.making <- struct{}{}:
		return func() { <-y.making }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// plan returns how many ready runtimes each template has from now on.
func (y *readySupply) plan(now time.Time) map[*index.Template]int {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.starts.Forget(now)
	for dataset := range y.templates {
		if _, known := y.starts[dataset]; !known {
			delete(y.templates, dataset)
		}
	}
	wanted := make(map[*index.Template]int)
	maps.DeleteFunc(y.committed, func(_ *index.Template, at time.Time) bool { return now.Sub(at) >= supply.Unused })
	if now.Before(y.pausedTo) {
		return wanted
	}
	for dataset, n := range supply.Plan(y.starts, y.limit, now) {
		wanted[y.templates[dataset]] = n
	}
	return wanted
}

// stop ends the refills and waits for the one that runs.
func (y *readySupply) stop() {
	close(y.quit)
	<-y.done
}

// supplyReady refills until the supply is stopped. ctx carries the logger.
func (s *Snapshotter) supplyReady(ctx context.Context) {
	y := s.ready
	defer close(y.done)
	check := time.NewTicker(supply.Unused / 10) // gives up what is not used any more
	defer check.Stop()
	for {
		select {
		case <-y.quit:
			return
		case <-check.C:
		case <-y.wake:
			s.waitForQuiet()
		}
		s.refill(ctx)
	}
}

// waitForQuiet waits until no operation writes, but not for long if ready runtimes are few.
func (s *Snapshotter) waitForQuiet() {
	for begin := time.Now(); ; {
		quiet, delay := enoughQuiet, enoughDelay
		if s.isSupplyLow(time.Now()) {
			quiet, delay = lowQuiet, lowDelay
		}
		wait := s.reaper.UntilQuiet(quiet)
		if wait <= 0 || time.Since(begin) >= delay {
			return
		}
		select {
		case <-s.ready.quit:
			return
		case <-time.After(min(wait, lowQuiet)): // there may be few by then
		}
	}
}

// isSupplyLow reports whether a template has few ready runtimes.
func (s *Snapshotter) isSupplyLow(now time.Time) bool {
	have := s.index.CountReady()
	for t, wanted := range s.ready.plan(now) {
		if supply.IsLow(have[t], wanted) {
			return true
		}
	}
	return false
}

// refill gives up the ready runtimes that are not wanted any more, and creates those that are
// missing.
func (s *Snapshotter) refill(ctx context.Context) {
	now := time.Now()
	wanted := s.ready.plan(now)
	have := make(map[*index.Template]int)
	s.index.GiveUpReady(func(r index.Ready) bool {
		have[r.Origin]++
		return have[r.Origin] > max(wanted[r.Origin], s.ready.kept(r.Origin, now))
	}, now)
	s.mountUnmounted(ctx)
	for t, n := range wanted {
		for missing := n - s.index.CountReady()[t]; missing > 0; missing -= refillBatch {
			s.waitForQuiet()
			select {
			case <-s.ready.quit:
				return
			default:
			}
			if err := s.makeReady(ctx, t, min(missing, refillBatch)); err != nil {
				s.ready.pause(time.Now())
				log.G(ctx).WithError(err).WithField("template", t.Dataset()).Debug("failed to create ready runtimes")
				return
			}
		}
	}
	s.createIntentLogs(ctx, wanted)
}

// createIntentLogs has ZFS create the intent logs of the ready runtimes of some templates. They
// share a txg, for which otherwise the first fsync in each container would wait, or the flush
// before its commit.
func (s *Snapshotter) createIntentLogs(ctx context.Context, of map[*index.Template]int) {
	if !s.holdsReady() { // a client may mount it at any time
		return
	}
	resume, err := s.ready.pauseMaking(ctx)
	if err != nil {
		return
	}
	defer resume()
	var created sync.WaitGroup
	for _, dataset := range s.index.MarkZIL(func(t *index.Template) bool { return of[t] > 0 }) {
		created.Go(func() {
			if err := s.pool.CreateIntentLog(ctx, dataset); err != nil {
				log.G(ctx).WithError(err).WithField("dataset", dataset).Debug("failed to create intent log of ready runtime")
			}
		})
	}
	created.Wait()
}

// mountUnmounted mounts the ready runtimes that commits have made.
func (s *Snapshotter) mountUnmounted(ctx context.Context) {
	for s.ready.limit > 0 {
		resume, err := s.ready.pauseMaking(ctx)
		if err != nil {
			return
		}
		r, ok := s.index.TakeUnmounted()
		if ok {
			s.mountReady(ctx, r.Dataset)
			r.Mounted = true
			s.index.AddReady(r, time.Now())
		}
		resume()
		if !ok {
			return
		}
	}
}

// makeReady creates n ready runtimes of a template in one program, and mounts them.
func (s *Snapshotter) makeReady(ctx context.Context, t *index.Template, n int) error {
	resume, err := s.ready.pauseMaking(ctx)
	if err != nil {
		return err
	}
	defer resume()
	if !s.index.PinInUse(t) {
		return nil
	}
	defer s.index.Unpin(t)
	quota, err := s.containerQuota(ctx, t)
	if err != nil {
		return err
	}
	ops := s.journal.Position()
	var made []index.Ready
	for range n {
		r := index.Ready{Dataset: s.config.Base.Ready(layout.NewID()), Origin: t, Quota: quota}
		made = append(made, r)
		ops = append(ops, zfs.Clone(t.Snapshot(), r.Dataset))
		if quota > 0 {
			ops = append(ops, zfs.Quota(r.Dataset, quota))
		}
	}
	if err := s.pool.Apply(ctx, ops...); err != nil {
		if errkind.IsAmbiguous(err) {
			for _, r := range made {
				s.index.AddGarbage(r.Dataset, t, time.Now())
			}
		}
		return err
	}
	for _, r := range made {
		s.mountReady(ctx, r.Dataset)
		r.Mounted = true
		s.index.AddReady(r, time.Now())
	}
	return nil
}

// mountReady mounts a ready runtime. A failure costs the container that gets the runtime only
// time.
func (s *Snapshotter) mountReady(ctx context.Context, dataset string) {
	if !s.holdsReady() {
		return
	}
	if _, err := s.hold(ctx, dataset); err != nil {
		log.G(ctx).WithError(err).WithField("dataset", dataset).Debug("failed to mount ready runtime")
	}
}

// holdsReady reports whether ready runtimes are mounted.
func (s *Snapshotter) holdsReady() bool { return s.mounts.Holds() && s.config.Mounts != MountZFS }

// usesReady reports whether the caller of ctx can get a ready runtime. A caller that mounts the
// dataset itself does not get one that is mounted: ZFS can refuse the mount of the client while
// it still ends the held one.
func (s *Snapshotter) usesReady(ctx context.Context) bool {
	return s.ready.limit > 0 && s.journal.HasLog() && (!s.holdsReady() || s.binds(ctx))
}

// nextReady returns the name of a ready runtime that the commit of a layer makes in its program,
// for the extraction of the next layer or the first container, or "" if it makes none.
func (s *Snapshotter) nextReady(ctx context.Context, r *index.Entry) string {
	if !s.usesReady(ctx) || r.Template.IsOpaque() || !s.pool.ProgramsClone() {
		return ""
	}
	total := 0
	for _, n := range s.index.CountReady() {
		total += n
	}
	if total >= s.ready.limit || s.ready.isPaused(time.Now()) {
		return ""
	}
	return s.config.Base.Ready(layout.NewID())
}

// claim makes a ready runtime the runtime of r, if there is one.
func (s *Snapshotter) claim(ctx context.Context, r *index.Entry, quota uint64) (claimed bool, err error) {
	if !s.usesReady(ctx) {
		return false, nil
	}
	ready, ok := s.index.TakeReady(r.Template, quota)
	if !ok {
		return false, nil
	}
	discard := func() { s.index.AddGarbage(ready.Dataset, ready.Origin, time.Now()) }
	if !s.mounts.Holds() && s.isMissing(ctx, ready.Dataset) {
		discard() // another program destroyed it
		return false, nil
	}
	r.Dataset = ready.Dataset
	set, err := r.Set()
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.writeClaim(ctx, r, set)
	}
	if err != nil {
		discard()
	}
	return true, err
}

// writeClaim writes the record of a claimed runtime. That of an extraction is not synchronised in
// the log: it survives the daemon, and a machine that stops during an extraction has to begin it
// again in any case. If the log cannot be written, a transaction writes the record to the same
// runtime. With a clone in its place two datasets could have the record after a crash.
func (s *Snapshotter) writeClaim(ctx context.Context, r *index.Entry, set []zfs.Op) error {
	if record.IsExtraction(r.Info) && s.journal.CommitUnsynced(set) == nil {
		return nil
	}
	err := s.write(ctx, set, s.apply)
	if errkind.IsAmbiguous(err) {
		s.rollBackCreate(r)
	}
	return err
}
