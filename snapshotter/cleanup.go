package snapshotter

import (
	"context"
	"slices"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// cleanupBatch bounds how many datasets are destroyed before others may use
// the templates among them again: one channel program's worth.
const cleanupBatch = 50

// Cleanup destroys what nobody needs, trash and templates that have been warm for
// longer than they are kept, and writes what removals are left. containerd calls it
// after each garbage collection. What cannot be destroyed now, because it is
// mounted or carries somebody else's snapshot, stays and is no error: it is
// tried again by the next Cleanup, or by itself a second later, and after that
// in pauses that grow to ten minutes.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	return settleErr(ctx, s, s.clean)
}

func (s *Snapshotter) clean(ctx context.Context) error {
	s.cleanup.Lock()
	defer s.cleanup.Unlock()
	defer s.again.poke()
	if err := s.queue.catchUp(ctx); err != nil {
		return poolError("cleanup", err)
	}
	if err := s.releaseMounts(ctx); err != nil {
		return err
	}
	if err := s.queue.overtake(func() ([]string, error) { return s.destroyDoomed(ctx) }); err != nil {
		return poolError("cleanup", err)
	}
	return poolError("cleanup", s.queue.flush(ctx))
}

// destroyDoomed destroys what nobody needs, and answers what is gone. A dataset
// whose removal is still to be written needs no writing: it is removed when it is
// destroyed, and of a crash in between containerd sees one that it removes again.
func (s *Snapshotter) destroyDoomed(ctx context.Context) (gone []string, err error) {
	for batch := range slices.Chunk(plan(s.index.nodes(s.config.WarmKeep, time.Now())), cleanupBatch) {
		if err := ctx.Err(); err != nil {
			return gone, err
		}
		destroyed, err := s.destroy(ctx, batch)
		gone = append(gone, destroyed...)
		if err != nil {
			return gone, err
		}
	}
	if len(gone) > 0 {
		log.G(ctx).WithField("datasets", len(gone)).Debug("cleanup destroyed what nobody needs")
	}
	return gone, nil
}

// nodes is the tree of clones as the index knows it. What could not be
// destroyed is not tried again before its time.
func (x *index) nodes(keep time.Duration, now time.Time) []node {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var nodes []node
	for dataset, t := range x.templates {
		n := node{dataset: dataset, doomed: t.expired(keep) && !x.stuck[dataset].waits(now)}
		if t.parent != nil {
			n.origin = t.parent.Dataset()
		}
		nodes = append(nodes, n)
	}
	for dataset, t := range x.trash {
		n := node{dataset: dataset, doomed: !x.stuck[dataset].waits(now)}
		if t.origin != nil {
			n.origin = t.origin.Dataset()
		}
		nodes = append(nodes, n)
	}
	for _, r := range x.records {
		if r.dataset != "" && r.template != nil && r.dataset != r.template.Dataset() {
			nodes = append(nodes, node{dataset: r.dataset, origin: r.template.Dataset()})
		}
	}
	return nodes
}

// expired tells whether a template may go: nobody can ask for an opaque one
// again, a layer is kept for a while.
func (t *template) expired(keep time.Duration) bool {
	if !t.warm() {
		return false
	}
	return t.IsOpaque() || keep != KeepForever && time.Since(t.idle) >= keep
}

// destroy destroys a batch of datasets and answers which are gone.
func (s *Snapshotter) destroy(ctx context.Context, batch []string) (gone []string, err error) {
	// A commit of the same layer waits here until the name is free again.
	names := slices.Sorted(slices.Values(batch))
	unlock, err := s.data.lockAll(ctx, names...)
	if err != nil {
		return nil, err
	}
	defer unlock()
	dying := s.index.condemn(batch, s.config.WarmKeep)
	order := slices.DeleteFunc(slices.Clone(batch), func(dataset string) bool { _, ok := dying[dataset]; return !ok })
	if len(order) == 0 {
		return nil, nil
	}
	left, err := s.destroyDatasets(ctx, order)
	if err != nil {
		s.index.reprieve(dying, order, func(string) bool { return true })
		return nil, err
	}
	s.index.reprieve(dying, order, func(dataset string) bool { return left[dataset] != nil })
	s.complain(ctx, left)
	return slices.DeleteFunc(order, func(dataset string) bool { return left[dataset] != nil }), nil
}

func (s *Snapshotter) destroyDatasets(ctx context.Context, order []string) (map[string]error, error) {
	for _, dataset := range order {
		if err := s.releaseMount(ctx, dataset); err != nil {
			return nil, err
		}
	}
	left, err := s.pool.Destroy(ctx, layout.Extracted, order)
	if err != nil {
		return nil, err
	}
	return s.destroyForeign(ctx, order, left)
}

// condemn takes those of the batch that still may go out of use. It answers
// them, with the template for those that were one.
func (x *index) condemn(batch []string, keep time.Duration) map[string]*template {
	x.mu.Lock()
	defer x.mu.Unlock()
	dying := make(map[string]*template)
	for _, dataset := range batch {
		t := x.templates[dataset]
		switch {
		case t != nil && t.expired(keep):
			delete(x.templates, dataset)
			x.discard(dataset, t.parent)
			dying[dataset] = t
		case t == nil && x.trash[dataset] != nil:
			dying[dataset] = nil
		}
	}
	return dying
}

// reprieve forgets what was destroyed and takes back into use what was not.
func (x *index) reprieve(dying map[string]*template, order []string, left func(string) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, dataset := range order {
		if !left(dataset) {
			delete(x.trash, dataset)
			delete(x.stuck, dataset)
		} else if t := dying[dataset]; t != nil {
			x.templates[dataset] = t
			delete(x.trash, dataset)
		}
	}
}
