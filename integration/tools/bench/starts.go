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

// A client is a daemon's way to speak to ZFS, with the name it has in the results.
type client struct{ flag, name string }

// clients are those of the contenders whose starts are measured. The first client is the
// one that the daemon has otherwise.
var clients = map[string][]client{
	report.Socket: {{"native", report.Native}, {"command", report.Command}},
	report.Before: {{"native", report.Before}},
}

// startBelow measures starts with fewer snapshots than a level has, as many as
// are still to be measured.
func (b *bench) startBelow(ctx context.Context, level int) error {
	if !slices.ContainsFunc(b.entrants, b.canStart) {
		return nil
	}
	for len(b.starts) > 0 && b.starts[0] < level {
		count := b.starts[0]
		b.starts = b.starts[1:]
		if err := b.measureStarts(ctx, count); err != nil {
			return err
		}
	}
	return nil
}

// canStart reports whether the entrant has a daemon whose start is measured.
func (b *bench) canStart(e *entrant) bool { return !e.out && b.daemons[e.Name] != nil }

// measureStarts measures how long a daemon takes to know what is on the pool,
// and what it needs to remember it.
func (b *bench) measureStarts(ctx context.Context, count int) error {
	b.say("making %d snapshots to start with", count)
	again := func(e *entrant) error { return b.daemons[e.Name].Restart(ctx, clients[e.Name][0].flag) }
	steps := []func(*entrant) error{
		func(e *entrant) error { return e.fill(ctx, count) },
		func(e *entrant) error { return b.measureMemory(ctx, e, report.MemoryUsed, count) },
		again, // not measured: the program is not in memory yet
	}
	for round := range b.startRounds {
		steps = append(steps, func(e *entrant) error { return b.restart(ctx, e, count, round) })
	}
	steps = append(steps, again,
		func(e *entrant) error { return b.measureMemory(ctx, e, report.MemoryStarted, count) },
	)
	for _, step := range steps {
		if err := b.startTurns(ctx, count, step); err != nil {
			return err
		}
	}
	b.say("daemons were started with %d snapshots", count)
	return nil
}

// startTurns calls step for each entrant that can start, beginning with another one each
// time.
func (b *bench) startTurns(ctx context.Context, count int, step func(*entrant) error) error {
	var who []*entrant
	for _, e := range b.entrants {
		if b.canStart(e) {
			who = append(who, e)
		}
	}
	b.round++
	for i := range who {
		e := who[(i+b.round)%len(who)]
		err := step(e)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.drop(e, fmt.Errorf("starts with %d snapshots: %w", count, err))
		}
	}
	return nil
}

// restart measures one start by each client. With many snapshots, and after the first
// round, only by the native client: the other takes minutes.
func (b *bench) restart(ctx context.Context, e *entrant, count, round int) error {
	daemon := b.daemons[e.Name]
	for _, c := range clients[e.Name] {
		if c.flag == "command" && (count > commandMost || round > 0) {
			continue
		}
		if err := daemon.Restart(ctx, c.flag); err != nil {
			return err
		}
		err := b.write(result.Sample{
			Case:  result.Case{Operation: report.Start, Clones: count, Callers: 1, On: c.name},
			Value: float64(daemon.Took.Nanoseconds()), Unit: result.Nanoseconds,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// measureMemory looks at the daemon's memory when it has had nothing to do for
// a while.
func (b *bench) measureMemory(ctx context.Context, e *entrant, operation string, count int) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(b.idle):
	}
	m, err := b.daemons[e.Name].Memory()
	if err != nil {
		return err
	}
	for suffix, bytes := range map[string]float64{"": m.Resident, report.PeakSuffix: m.Peak} {
		err := b.write(result.Sample{
			Case:  result.Case{Operation: operation + suffix, Clones: count, Callers: 1, On: clients[e.Name][0].name},
			Value: bytes, Unit: result.Bytes,
		})
		if err != nil {
			return err
		}
	}
	return nil
}
