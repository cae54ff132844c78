//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/zfstpl/zfstpl/integration/model"
)

const (
	workers = 4
	// Images are chains of layers that all workers pull, each into a namespace
	// of its own.
	images = 4
	depth  = 4
)

// loadTime is how long a load goes on if nothing stops it, which is an error. The
// clock of an emulated machine on a busy host may run several times too fast.
const loadTime = 15 * time.Minute

// load lets workers do whatever comes to their minds until the power goes.
// found is shared out among them.
func (m *machine) load(ctx context.Context, c *client, found map[string]model.Snapshot) error {
	return m.untilCut(c, found, workers, func(w *worker) error { return w.step(ctx) })
}

// untilCut lets so many workers do one step after the other until the power goes,
// or something is wrong.
func (m *machine) untilCut(c *client, found map[string]model.Snapshot, many int, step func(*worker) error) error {
	m.cutter.arm()
	known := &hashes{m: m.book.Layers()}
	failed := make(chan error, many)
	for id := range many {
		w := m.worker(c, id)
		w.hashes = known
		for name, snap := range found {
			if ownerOf(name) == id {
				w.own.Put(name, snap)
			}
		}
		go func() { failed <- w.work(step) }()
	}
	select {
	case err := <-failed:
		return err
	case <-m.daemon.exited:
		return fmt.Errorf("the daemon ended under the load: %w", m.daemon.err)
	case <-time.After(loadTime):
		return errors.New("the power was not cut")
	}
}

func ownerOf(name string) int {
	h := fnv.New32a()
	fmt.Fprint(h, name)
	return int(h.Sum32() % workers)
}

func (m *machine) worker(c *client, id int) *worker {
	return &worker{
		client: c, seed: m.seed, namespace: []string{"default", "k8s.io", "moby", "buildkit"}[id],
		number: (m.cycle*workers + id) * 100000,
		r:      rand.New(rand.NewPCG(m.seed, uint64(1000+m.cycle*workers+id))),
		own:    model.New(model.Config{}), adopted: make(map[string]string),
	}
}

// chain is the chain ID of an image's layer; 1 is its lowest.
func (w *worker) chain(image, layer int) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(fmt.Appendf(nil, "%d/%d/%d", w.seed, image, layer)))
}

// seedOf is what a layer is made of: the same for every worker that pulls it.
func seedOf(chain string) *rand.Rand {
	return rand.New(rand.NewChaCha8(sha256.Sum256([]byte(chain))))
}
