//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/contender"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/rig"
	"github.com/zfstpl/zfstpl/plugin/control"
)

// cleanupsPlan says how much is cleaned up, and how often.
type cleanupsPlan struct {
	name     string
	datasets int // that a cleanup destroys
	rounds   int
	still    int // Prepares before each cleanup, to compare with
}

var (
	fullCleanups  = cleanupsPlan{name: "full", datasets: 1000, rounds: 2, still: 40}
	quickCleanups = cleanupsPlan{name: "quick", datasets: 120, rounds: 1, still: 10}
)

type cleanupsBench struct {
	cleanupsPlan
	*contender.Contender
	conn   grpc.ClientConnInterface
	began  time.Time
	serial int
}

// measureCleanups measures what a Prepare takes while a cleanup is under way.
func measureCleanups(ctx context.Context, p cleanupsPlan, o rig.Options) (err error) {
	b := &cleanupsBench{cleanupsPlan: p, began: time.Now()}
	r, err := rig.New(ctx, o)
	defer func() { err = errors.Join(err, r.Close()) }()
	if err != nil {
		return err
	}
	facts, err := r.Facts(ctx)
	if err != nil {
		return err
	}
	if err := result.WriteFacts(os.Stdout, append(facts, result.Fact{Key: report.PlanFact, Value: p.name})); err != nil {
		return err
	}
	d, err := r.Base(ctx, report.Socket)
	if err != nil {
		return err
	}
	if err := d.Start(ctx, "native", "--cleanup-mode", "manual"); err != nil {
		return err
	}
	if b.conn, err = d.Dial(); err != nil {
		return err
	}
	sn, err := d.Snapshotter()
	if err != nil {
		return err
	}
	b.Contender = &contender.Contender{Snapshots: &contender.Through{
		Snapshotter: sn, Collect: func(context.Context) error { return nil }, // by hand
	}}
	if err := b.MakeTemplate(ctx, contender.WriteTemplate); err != nil {
		return err
	}
	for round := range b.rounds {
		if err := b.round(ctx); err != nil {
			return err
		}
		b.say("round %d of %d", round+1, b.rounds)
	}
	return nil
}

func (b *cleanupsBench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%6s] %s\n", time.Since(b.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// round prepares for a while with nothing else to do, and then for as long as a
// cleanup takes.
func (b *cleanupsBench) round(ctx context.Context) error {
	b.say("making %d clones", b.datasets)
	keys := make([]string, b.datasets)
	for i := range keys {
		keys[i] = b.key()
	}
	if err := contender.Each(ctx, fillers, keys, b.Prepare); err != nil {
		return err
	}
	for i := 0; i < len(keys); i += changedEach {
		if err := b.Change(ctx, keys[i]); err != nil {
			return err
		}
	}
	unix.Sync()
	var made []string
	for range b.still {
		key, err := b.prepare(ctx, report.Still)
		if err != nil {
			return err
		}
		made = append(made, key)
	}
	if err := b.Remove(ctx, keys...); err != nil {
		return err
	}
	b.say("cleaning up")
	over := make(chan error, 1)
	go func() { over <- control.Clean(ctx, b.conn, "", nil) }()
	for {
		key, err := b.prepare(ctx, report.Socket)
		if err != nil {
			return errors.Join(err, <-over)
		}
		made = append(made, key)
		select {
		case err := <-over:
			return errors.Join(err, b.Remove(ctx, made...), control.Clean(ctx, b.conn, "", nil))
		default:
		}
	}
}

func (b *cleanupsBench) key() string {
	b.serial++
	return fmt.Sprintf("sample-%05d", b.serial)
}

// prepare measures a Prepare.
func (b *cleanupsBench) prepare(ctx context.Context, on string) (string, error) {
	key := b.key()
	began := time.Now()
	err := b.Prepare(ctx, key)
	took := time.Since(began)
	if err != nil {
		return "", err
	}
	_, err = fmt.Println(result.Sample{
		Case:  result.Case{Operation: report.Cleaning, Clones: b.datasets, Callers: 1, On: on},
		Value: float64(took.Nanoseconds()), Unit: result.Nanoseconds,
	})
	return key, err
}
