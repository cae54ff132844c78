//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/zfstpl/zfstpl/integration/powercut/ledger"
)

// patience bounds every wait for an event. The machine is emulated and slow.
const patience = 5 * time.Minute

type options struct {
	seed        uint64
	cycle, cuts int
	requests    int
	ledger, bin string
	device      string
}

func main() {
	var opts options
	flag.Uint64Var(&opts.seed, "seed", 0, "what everything random follows from")
	flag.IntVar(&opts.cycle, "cycle", 0, "how often the power was cut before")
	flag.IntVar(&opts.cuts, "cuts", 0, "how often it will be in all")
	flag.IntVar(&opts.requests, "requests", 60, "the most requests until the power is cut")
	flag.StringVar(&opts.ledger, "ledger", "", "`FILE` of what was noted before")
	flag.StringVar(&opts.bin, "bin", "/put/bin", "`DIR` of the programs under test")
	flag.StringVar(&opts.device, "device", "/dev/testbed/disk0", "the pool's `DISK`: what is on it is lost")
	flag.Parse()
	if err := run(context.Background(), opts); err != nil {
		fmt.Fprintf(os.Stderr, "powercut: seed %d, after %d cuts: %v\n", opts.seed, opts.cycle, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, opts options) error {
	book, err := readLedger(opts.ledger)
	if err != nil {
		return err
	}
	plan := planOf(opts)
	notes := ledger.NewWriter(os.Stdout)
	begins := ledger.Note{Note: ledger.Begins, Text: plan.String()}
	if err := errors.Join(notes.Say(begins), book.Take(begins)); err != nil {
		return err
	}
	m := &machine{options: opts, plan: plan, book: book, notes: notes, cutter: newCutter(plan, notes)}
	if err := m.openPool(ctx); err != nil {
		return err
	}
	if err := m.countRemains(ctx); err != nil {
		return err
	}
	if m.layers, err = serveLayers(); err != nil {
		return err
	}
	if err := m.startDaemon(ctx); err != nil {
		return err
	}
	// What a life with little room has left is recovered with as little.
	if _, err := command(ctx, "zfs", "set", "quota=none", baseName); err != nil {
		return err
	}
	if err := m.live(ctx); err != nil {
		return fmt.Errorf("%w\nthe end of the daemon's log:\n%s", err, m.daemon.tail())
	}
	return nil
}

func readLedger(path string) (*ledger.Book, error) {
	book := ledger.NewBook()
	if path == "" {
		return book, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return book, ledger.Read(f, book.Take)
}

// machine is one life of the machine.
type machine struct {
	options
	plan   plan
	book   *ledger.Book
	notes  *ledger.Writer
	cutter *cutter
	daemon *daemon
	layers *layers
	// remains is how many invariants the cut has left broken, for the daemon to
	// recover.
	remains int
}

// live is what happens once the daemon has recovered.
func (m *machine) live(ctx context.Context) error {
	c, err := m.dial()
	if err != nil {
		return err
	}
	found, err := m.verify(ctx, c)
	if err != nil {
		return err
	}
	if m.plan.last {
		return m.end(ctx, c)
	}
	if m.plan.narrow {
		return m.loadNarrowly(ctx, c, found)
	}
	return m.load(ctx, c, found)
}
