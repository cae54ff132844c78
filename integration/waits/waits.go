package waits

import (
	"context"
	"path/filepath"
	"time"
)

// Watch counts what a process waits for. Its methods are called one at a time.
type Watch struct {
	probe  *probe
	kstats string
	before commits
}

// Start starts to count the waits of the process pid, of all its threads and of the commands
// that it runs, and the ZIL commits of a pool. The error is ErrUnavailable if the kernel has
// no probes. Close removes the probes. If this process ends without that, the next Start of
// any process removes them.
//
// Waits for a place in the open txg (txg_wait_open, dmu_tx_wait), with which ZFS slows down
// programs that write more than the disk takes, are not counted: they do not wait until
// something is on disk.
func Start(pid int, pool string) (*Watch, error) {
	p, err := newProbe(pid)
	if err != nil {
		return nil, err
	}
	w := &Watch{probe: p, kstats: filepath.Join(kstats, pool)}
	if err := w.Reset(); err != nil {
		_ = p.close() // the first error says more
		return nil, err
	}
	return w, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return w.probe.close() }

// Reset begins to count anew.
func (w *Watch) Reset() (err error) {
	if w.before, err = readCommits(w.kstats); err != nil {
		return err
	}
	return w.probe.reset()
}

// Counts returns what was waited for since the last Reset. A call in progress that has
// blocked counts.
func (w *Watch) Counts() (c Counts, err error) {
	text, err := w.probe.read()
	if err != nil {
		return c, err
	}
	now, err := readCommits(w.kstats)
	if err != nil {
		return c, err
	}
	c.addCalls(parseTrace(text))
	now.since(w.before, &c)
	return c, nil
}

// During returns what was waited for while fn ran. What the process does in the background
// meanwhile counts too; see WaitUntilIdle.
func (w *Watch) During(fn func()) (Counts, error) {
	if err := w.Reset(); err != nil {
		return Counts{}, err
	}
	fn()
	return w.Counts()
}

// WaitUntilIdle waits until the process has begun no wait, and the pool has had no ZIL commit,
// for a time of quiet. It does not reset the counts.
func (w *Watch) WaitUntilIdle(ctx context.Context, quiet time.Duration) error {
	const interval = 100 * time.Millisecond
	var last Counts
	for since := time.Now(); ; {
		now, err := w.Counts()
		if err != nil {
			return err
		}
		if now.isBusy() || len(now.Calls) != len(last.Calls) || now.ZIL != last.ZIL {
			since = time.Now()
		}
		if last = now; time.Since(since) >= quiet {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(interval):
		}
	}
}
