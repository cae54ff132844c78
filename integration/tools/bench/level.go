//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/contender"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
)

// measureLevel measures everything that belongs to a number of clones.
func (b *bench) measureLevel(ctx context.Context, level int) error {
	if err := b.fillAll(ctx, level); err != nil {
		return err
	}
	if b.loads {
		return b.measureLoads(ctx, level)
	}
	return b.measureParts(ctx, level)
}

// measureParts measures everything that belongs to a number of clones and a load.
func (b *bench) measureParts(ctx context.Context, level int) error {
	for _, e := range b.entrants {
		e.spent = make(map[string]time.Duration)
	}
	parts := []struct {
		what   string
		rounds int
		f      func(context.Context, *entrant, int) error
	}{
		{"operations", b.rounds, b.operate},
		{"mounts", b.mountRounds, b.mountAll},
		{"containers", when(b.containers == level, b.containerRounds), b.runContainer},
		{"first output of containers", when(b.containers == level, b.firstRounds), b.firstOutput},
		{"extractions", b.extractRounds, b.extract},
		{"waits", b.waitRounds, b.countWaits},
		{"prepares at once", when(slices.Contains(b.bursts, level), b.burstRounds), b.burst},
		{"removal", when(b.removal == level, b.removalRounds), b.removeAll},
	}
	for _, part := range parts {
		for round := range part.rounds {
			err := b.turns(ctx, part.what, level, func(ctx context.Context, e *entrant) error {
				if !b.busy {
					unix.Sync() // what another contender has left to write is not this one's
				}
				return part.f(ctx, e, level)
			})
			if err != nil {
				return err
			}
			b.say("%d clones, %s%s: round %d of %d", level, part.what, b.load(), round+1, part.rounds)
		}
	}
	return nil
}

func when(yes bool, rounds int) int {
	if yes {
		return rounds
	}
	return 0
}

// fillAll brings all contenders to the level, all at the same time: that is not
// measured, and takes long enough.
func (b *bench) fillAll(ctx context.Context, level int) error {
	b.say("making %d clones for each", level)
	errs := make([]error, len(b.entrants))
	var wg sync.WaitGroup
	for i, e := range b.entrants {
		if !e.out && !b.exceeds(e, level) {
			wg.Go(func() { errs[i] = e.fill(ctx, level) })
		}
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i, err := range errs {
		if err != nil {
			b.drop(b.entrants[i], fmt.Errorf("making %d clones: %w", level, err))
		}
	}
	return nil
}

func (e *entrant) fill(ctx context.Context, level int) error {
	if level <= e.filled {
		return nil
	}
	keys := cloneKeys(e.filled, level)
	if err := contender.Each(ctx, fillers, keys, e.Prepare); err != nil {
		return err
	}
	for i := e.filled; i < min(level, changedClones); i++ {
		if i%changedEach != 0 {
			continue
		}
		if err := e.Change(ctx, keys[i-e.filled]); err != nil {
			return err
		}
	}
	e.filled = level
	return nil
}

func cloneKeys(from, to int) []string {
	var keys []string
	for i := from; i < to; i++ {
		keys = append(keys, fmt.Sprintf("clone-%05d", i))
	}
	return keys
}

// operate is one turn: some cycles, after which everything is as before.
func (b *bench) operate(ctx context.Context, e *entrant, level int) error {
	measure := func(operation string, f func() error) error { return b.timed(e, operation, level, 1, f) }
	var left []string
	for range b.cycles {
		made, err := b.cycle(ctx, e, measure)
		if err != nil {
			return err
		}
		left = append(left, made...)
	}
	return e.Remove(ctx, left...)
}

// A measurer measures one operation.
type measurer func(operation string, f func() error) error

// cycle does each operation once, Prepare twice, and returns what it leaves.
func (b *bench) cycle(ctx context.Context, e *entrant, measure measurer) ([]string, error) {
	active, removed, view, committed := b.key(), b.key(), b.key(), b.key()
	steps := []struct {
		operation string
		f         func() error
	}{
		{report.Prepare, func() error { return e.Prepare(ctx, active) }},
		{report.Mounts, func() error { _, err := e.Mounts(ctx, active); return err }},
		{report.Stat, func() error { return e.Stat(ctx, active) }},
		{"", func() error { return e.Change(ctx, active) }},
		{report.Usage, func() error { return e.Usage(ctx, active) }},
		{report.View, func() error { return e.View(ctx, view) }},
		{report.Commit, func() error { return e.Commit(ctx, committed, active) }},
		{report.Prepare, func() error { return e.Prepare(ctx, removed) }},
		{report.Remove, func() error { return e.Remove(ctx, removed) }},
	}
	for _, s := range steps {
		if s.operation == "" {
			if err := s.f(); err != nil {
				return nil, fmt.Errorf("writing files: %w", err)
			}
			continue
		}
		if err := measure(s.operation, s.f); err != nil {
			return nil, err
		}
	}
	return []string{view, committed}, nil
}

// burst has many callers prepare at once.
func (b *bench) burst(ctx context.Context, e *entrant, level int) error {
	if slices.Contains(b.burstNot, e.Name) {
		return nil
	}
	keys := make([]string, burstPrepares)
	for i := range keys {
		keys[i] = b.key()
	}
	err := b.timed(e, report.Burst, level, burstCallers, func() error {
		return contender.Each(ctx, burstCallers, keys, e.Prepare)
	})
	if err != nil {
		return err
	}
	return e.Remove(ctx, keys...)
}

// mountAll is one turn: some cycles of what a client does with a snapshot that it
// mounts and unmounts.
func (b *bench) mountAll(ctx context.Context, e *entrant, level int) error {
	if b.mountRounds == 0 {
		return nil
	}
	for range b.cycles {
		key := b.key()
		err := b.timed(e, report.PrepareMount, level, 1, func() error {
			if err := e.Prepare(ctx, key); err != nil {
				return err
			}
			mounts, err := e.Mounts(ctx, key)
			if err != nil {
				return err
			}
			return b.timed(e, report.Mount, level, 1, func() error {
				return mount.WithTempMount(ctx, mounts, func(string) error { return nil })
			})
		})
		if err != nil {
			return err
		}
		if err := e.Remove(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// runContainer runs a container from its beginning to its end.
func (b *bench) runContainer(ctx context.Context, e *entrant, level int) error {
	if e.RunContainer == nil {
		return nil
	}
	err := b.timed(e, report.Container, level, 1, func() error { return e.RunContainer(ctx, b.key()) })
	if err != nil {
		return err
	}
	return e.Remove(ctx)
}

// firstOutput runs a container and measures the time until its first output.
func (b *bench) firstOutput(ctx context.Context, e *entrant, level int) error {
	if e.FirstOutput == nil {
		return nil
	}
	took, err := e.FirstOutput(ctx, b.key())
	if err != nil {
		return fmt.Errorf("first output: %w", err)
	}
	return errors.Join(b.record(e, report.FirstOutput, level, 1, took), e.Remove(ctx))
}

// extract is one turn: some cycles of a layer's extraction, without sync_fs and with it.
func (b *bench) extract(ctx context.Context, e *entrant, level int) error {
	if e.Extract == nil || b.extractRounds == 0 {
		return nil
	}
	for range b.cycles {
		err := e.extractions(ctx, func(operation string, f func() error) error { return b.timed(e, operation, level, 1, f) })
		if err != nil {
			return err
		}
	}
	return nil
}

// extractions extracts a layer without sync_fs, and one with it.
func (e *entrant) extractions(ctx context.Context, measure measurer) error {
	for _, operation := range []string{report.Extract, report.ExtractSync} {
		run, name, err := e.Extract(ctx)
		if err != nil {
			return err
		}
		if err := measure(operation, func() error { return run(ctx, operation == report.ExtractSync) }); err != nil {
			return err
		}
		if err := e.Remove(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// measureImports measures how long it takes until an archive is an image that containers
// can run from.
func (b *bench) measureImports(ctx context.Context) error {
	for _, e := range b.entrants {
		e.spent = make(map[string]time.Duration)
	}
	for round := range b.imports {
		err := b.turns(ctx, "imports", 0, func(ctx context.Context, e *entrant) error {
			if err := e.RemoveImages(ctx); err != nil {
				return err
			}
			// What ZFS frees in the background is no part of the import.
			if e.Reclaimed != nil {
				if err := until(ctx, e.Reclaimed); err != nil {
					return err
				}
			}
			unix.Sync()
			return b.timed(e, report.Import, 0, 1, func() error { return e.Import(ctx, b.archive) })
		})
		if err != nil {
			return err
		}
		b.say("imports: round %d of %d", round+1, b.imports)
	}
	return nil
}

// reclaimPoll is how often it is looked whether the space is back.
const reclaimPoll = 20 * time.Millisecond

// removeAll removes all clones, until the last of them is off the disk and the
// space is back. Where a further round wants them they are made again.
func (b *bench) removeAll(ctx context.Context, e *entrant, level int) error {
	if err := e.fill(ctx, level); err != nil {
		return err
	}
	keys := cloneKeys(0, level)
	e.filled = 0
	return b.timed(e, report.RemoveAll, level, 1, func() error {
		err := b.timed(e, report.OffDisk, level, 1, func() error {
			if err := e.Remove(ctx, keys...); err != nil {
				return err
			}
			return until(ctx, e.isEmpty)
		})
		if err != nil || e.Reclaimed == nil {
			return err
		}
		return until(ctx, e.Reclaimed)
	})
}

// isEmpty reports whether no more is on disk than without clones.
func (e *entrant) isEmpty(ctx context.Context) (bool, error) {
	held, err := e.Held(ctx)
	return held <= e.empty, err
}

// until looks again and again until something is true.
func until(ctx context.Context, f func(context.Context) (bool, error)) error {
	for {
		if done, err := f(ctx); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(reclaimPoll):
		}
	}
}
