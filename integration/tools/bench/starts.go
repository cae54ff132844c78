//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
)

// clients are the daemon's ways to speak to ZFS, with the names they have in
// the results.
var clients = []struct{ flag, name string }{{"native", report.Native}, {"command", report.Command}}

// startBelow measures starts with fewer snapshots than a level has, as many as
// are still to be measured. The daemon is the socket's.
func (b *bench) startBelow(ctx context.Context, level int) error {
	i := slices.IndexFunc(b.entrants, func(e *entrant) bool { return e.Name == report.Socket })
	if i < 0 || b.entrants[i].out {
		return nil
	}
	for len(b.starts) > 0 && b.starts[0] < level {
		count := b.starts[0]
		b.starts = b.starts[1:]
		b.say("making %d snapshots to start with", count)
		err := b.entrants[i].fill(ctx, count)
		if err == nil {
			err = b.measureStarts(ctx, count)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.drop(b.entrants[i], fmt.Errorf("starts with %d snapshots: %w", count, err))
			return nil
		}
	}
	return nil
}

// measureStarts measures how long a daemon takes to know what is on the pool,
// and what it needs to remember it. With many snapshots, only by the native
// client: the other takes minutes.
func (b *bench) measureStarts(ctx context.Context, count int) error {
	if err := b.measureMemory(ctx, report.MemoryUsed, count); err != nil {
		return err
	}
	for round := range b.startRounds {
		for _, c := range clients {
			if c.flag == "command" && (count > commandMost || round > 0) {
				continue
			}
			if err := b.daemon.Restart(ctx, c.flag); err != nil {
				return err
			}
			err := b.write(result.Sample{
				Case:  result.Case{Operation: report.Start, Clones: count, Callers: 1, On: c.name},
				Value: float64(b.daemon.Took.Nanoseconds()), Unit: result.Nanoseconds,
			})
			if err != nil {
				return err
			}
		}
	}
	// What follows is the native client's again.
	if err := b.daemon.Restart(ctx, "native"); err != nil {
		return err
	}
	b.say("a daemon was started with %d snapshots", count)
	return b.measureMemory(ctx, report.MemoryStarted, count)
}

// measureMemory looks at the daemon's memory when it has had nothing to do for
// a while.
func (b *bench) measureMemory(ctx context.Context, operation string, count int) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(b.idle):
	}
	m, err := b.daemon.Memory()
	if err != nil {
		return err
	}
	for suffix, bytes := range map[string]float64{"": m.Resident, report.PeakSuffix: m.Peak} {
		err := b.write(result.Sample{
			Case:  result.Case{Operation: operation + suffix, Clones: count, Callers: 1, On: report.Native},
			Value: bytes, Unit: result.Bytes,
		})
		if err != nil {
			return err
		}
	}
	return nil
}
