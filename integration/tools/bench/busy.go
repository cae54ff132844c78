//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/writer"
)

// writerName is the writer's dataset.
const writerName = "writer"

// measureLoads measures a level on an idle pool, and then on a busy one.
func (b *bench) measureLoads(ctx context.Context, level int) error {
	b.prefix = report.IdlePrefix
	if err := b.measureParts(ctx, level); err != nil {
		return err
	}
	b.prefix = report.BusyPrefix
	return b.whileBusy(ctx, level, func() error { return b.measureParts(ctx, level) })
}

// whileBusy calls f while a writer keeps the pool busy.
func (b *bench) whileBusy(ctx context.Context, level int, f func() error) (err error) {
	if _, err := os.Stat(b.rig.Path(writerName)); errors.Is(err, os.ErrNotExist) {
		if err := b.rig.MakeDataset(ctx, writerName, true); err != nil {
			return err
		}
	}
	w, err := b.rig.StartWriter(ctx, b.rig.Path(writerName))
	if err != nil {
		return err
	}
	b.busy = true
	defer func() {
		b.busy = false
		written, finishErr := w.Finish()
		err = errors.Join(err, finishErr)
		if finishErr == nil {
			b.written = append(b.written, rate(written, level))
			b.say("the writer wrote %s", rate(written, level))
		}
	}()
	return f()
}

func rate(w writer.Written, level int) string {
	return fmt.Sprintf("%.2f MiB/s in %d files at %d clones", w.Rate(), w.Files, level)
}

// writeLoad writes down how busy the pool was.
func (b *bench) writeLoad() error {
	if len(b.written) == 0 {
		return nil
	}
	return result.WriteFacts(os.Stdout, []result.Fact{{Key: report.WriterFact, Value: strings.Join(b.written, ", ")}})
}

// load is the load in words, for the progress.
func (b *bench) load() string {
	switch {
	case b.busy:
		return ", busy pool"
	case b.loads:
		return ", idle pool"
	default:
		return ""
	}
}
