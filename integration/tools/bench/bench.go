//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/contender"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/rig"
)

// bench is one run.
type bench struct {
	plan
	rig      *rig.Rig
	image    string
	began    time.Time
	entrants []*entrant
	// daemons are those whose starts are measured, by their contender's name.
	daemons map[string]*rig.Daemon
	// failed are those that went wrong and have no further turn.
	failed []error
	serial int
	// round counts all rounds of a run; warming is set while nothing is written
	// down yet.
	round   int
	warming bool
	// busy is set while a writer keeps the pool busy.
	busy bool
	// written are the rates of the writers, in words.
	written []string
}

// entrant is a contender and what became of it so far.
type entrant struct {
	*contender.Contender
	filled int
	// empty is what it holds on disk with no clones.
	empty int
	// spent is what it took for something at the level that is measured.
	spent map[string]time.Duration
	out   bool
}

func measure(ctx context.Context, p plan, o rig.Options) (err error) {
	b := &bench{plan: p, began: time.Now(), daemons: make(map[string]*rig.Daemon)}
	b.rig, err = rig.New(ctx, o)
	defer func() {
		b.say("taking everything down")
		err = errors.Join(err, b.rig.Close())
	}()
	if err != nil {
		return err
	}
	ctx = namespaces.WithNamespace(ctx, contender.Namespace)
	if err := b.setUp(ctx); err != nil {
		return err
	}
	facts, err := b.rig.Facts(ctx)
	if err != nil {
		return err
	}
	if err := result.WriteFacts(os.Stdout, append(facts, result.Fact{Key: report.PlanFact, Value: p.name})); err != nil {
		return err
	}
	for _, level := range b.levels {
		if err := b.startBelow(ctx, level); err != nil {
			return err
		}
		if err := b.measureLevel(ctx, level); err != nil {
			return err
		}
	}
	if err := b.startBelow(ctx, math.MaxInt); err != nil {
		return err
	}
	if err := b.measureImports(ctx); err != nil {
		return err
	}
	if err := b.writeLoad(); err != nil {
		return err
	}
	return errors.Join(b.failed...)
}

// say writes a line of progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%6s] %s\n", time.Since(b.began).Round(time.Second), fmt.Sprintf(format, args...))
}

// add takes a contender in, when nothing is left of how it was set up.
func (b *bench) add(ctx context.Context, c *contender.Contender) error {
	if err := c.Remove(ctx); err != nil {
		return err
	}
	held, err := c.Held(ctx)
	if err != nil {
		return err
	}
	e := &entrant{Contender: c, empty: held}
	b.entrants = append(b.entrants, e)
	// Once for nothing: what is first pays for what is not in memory yet.
	b.warming = true
	defer func() { b.warming = false }()
	return errors.Join(b.operate(ctx, e, 0), b.mountAll(ctx, e, 0), b.runContainer(ctx, e, 0), b.extract(ctx, e, 0))
}

// turns calls f for each entrant, beginning with another one each round, as
// long as it has patience left for what. Every contender has the first round.
func (b *bench) turns(ctx context.Context, what string, level int, f func(context.Context, *entrant) error) error {
	n := len(b.entrants)
	b.round++
	for i := range n {
		e := b.entrants[(i+b.round)%n]
		if e.out || b.exceeds(e, level) || e.spent[what] > b.patienceWith(e) {
			continue
		}
		began := time.Now()
		err := f(ctx, e)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.drop(e, fmt.Errorf("%s with %d clones: %w", what, level, err))
		}
		e.spent[what] += time.Since(began)
		if err := settle(ctx, e.PID); err != nil {
			return err
		}
	}
	return nil
}

// exceeds reports whether an entrant is not measured with so many clones.
func (b *bench) exceeds(e *entrant, level int) bool {
	most := e.Most
	if b.slowMost > 0 && e.Name == report.ZFSPlugin {
		most = b.slowMost
	}
	return most > 0 && level > most
}

func (b *bench) patienceWith(e *entrant) time.Duration {
	if b.slow > 0 && e.Name == report.ZFSPlugin {
		return b.slow
	}
	return b.patience
}

// drop takes an entrant out of the run: the others go on.
func (b *bench) drop(e *entrant, err error) {
	err = fmt.Errorf("%s is out: %w", e.Name, err)
	b.say("%v", err)
	b.failed = append(b.failed, err)
	e.out = true
}

// timed measures one operation of an entrant's. Those that it lacks are done
// and not written down.
func (b *bench) timed(e *entrant, operation string, clones, callers int, f func() error) error {
	began := time.Now()
	err := f()
	took := time.Since(began)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.ToLower(operation), err)
	}
	return b.record(e, operation, clones, callers, took)
}

// record writes down what an operation took, unless the entrant lacks it.
func (b *bench) record(e *entrant, operation string, clones, callers int, took time.Duration) error {
	if slices.Contains(e.Lacks, operation) {
		return nil
	}
	return b.write(result.Sample{
		Case:  result.Case{Operation: b.prefix + operation, Clones: clones, Callers: callers, On: e.Name},
		Value: float64(took.Nanoseconds()), Unit: result.Nanoseconds,
	})
}

func (b *bench) write(s result.Sample) error {
	if b.warming {
		return nil
	}
	_, err := fmt.Println(s)
	return err
}

// key returns a key that was never used.
func (b *bench) key() string {
	b.serial++
	return fmt.Sprintf("sample-%05d", b.serial)
}
