//go:build linux

package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
	"github.com/zfstpl/zfstpl/integration/waits"
)

// quietBeforeWaits is how long nothing may have been waited for before an operation. It is
// more than the time after which zfstpl copies its log in the background.
const quietBeforeWaits = 3 * time.Second

// countWaits is one turn: each operation and each extraction once. It counts the txgs that the
// entrant's process waits for, and the commits of the ZIL of all datasets of the pool, and
// traces where the time goes.
func (b *bench) countWaits(ctx context.Context, e *entrant, level int) (err error) {
	if e.PID == 0 {
		return nil
	}
	watch, err := waits.Start(e.PID, b.rig.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watch.Close()) }()
	measure := func(operation string, f func() error) error {
		if err := watch.WaitUntilIdle(ctx, quietBeforeWaits); err != nil {
			return err
		}
		var failed error
		var t traced
		counts, err := watch.During(func() { t, failed = trace(f) })
		if err := errors.Join(failed, err); err != nil {
			return err
		}
		if slices.Contains(e.Lacks, operation) {
			return nil
		}
		return errors.Join(b.recordWaits(e, operation, level, counts), b.recordTrace(e, operation, level, t))
	}
	left, err := b.cycle(ctx, e, measure)
	if err != nil {
		return err
	}
	if e.Extract != nil {
		if err := e.extractions(ctx, measure); err != nil {
			return err
		}
	}
	return e.Remove(ctx, left...)
}

func (b *bench) recordWaits(e *entrant, operation string, level int, counts waits.Counts) error {
	on := result.Case{Clones: level, Callers: 1, On: e.Name}
	txgs, zil := on, on
	txgs.Operation, zil.Operation = report.TxgsPrefix+operation, report.ZILPrefix+operation
	return errors.Join(
		b.write(result.Sample{Case: txgs, Value: float64(counts.Txgs), Unit: result.Txgs}),
		b.write(result.Sample{Case: zil, Value: float64(counts.ZIL), Unit: result.ZILCommits}),
	)
}
