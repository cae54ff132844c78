package snapshotter

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// policy says which cached templates go.
func (c Config) policy() space.Policy {
	return space.Policy{Keep: c.CacheKeep, MaxBytes: c.CacheMaxBytes, Pressure: c.Pressure}
}

// sweeps is what is remembered from one sweep to the next.
type evictionState struct {
	lastCheck atomic.Int64 // when a Prepare last asked how full the pool is; Unix nanoseconds

	mu       sync.Mutex
	problems string // that were said last
}

// Gauge tells how full things are. *zfs.Client is one.
type Gauge interface {
	Space(ctx context.Context, filesystem string) (zfs.Space, error)
	State(ctx context.Context) (zfs.PoolState, error)
}

// Limits answers what bounds a base: the quotas in it, on it and on what it lies
// in, and its pool. Of the pool what ZFS keeps back for itself is no part, so that
// 100 percent is where writing ends.
func Limits(ctx context.Context, pool Gauge, base layout.Base) ([]space.Limit, error) {
	state, err := pool.State(ctx)
	if err != nil {
		return nil, err
	}
	var limits []space.Limit
	for _, name := range append([]string{base.Storage(), base.Runtime()}, ancestors(base.String())...) {
		s, err := pool.Space(ctx, name)
		if err != nil {
			return nil, err
		}
		if s.Quota > 0 {
			l := space.Limit{Of: "the quota of " + name, Used: s.Used, Total: s.Quota}
			if name == base.Runtime() {
				l.Blocked = "what is warm lies in " + base.Storage() + ", which it does not bound"
			}
			limits = append(limits, l)
		}
		if name == base.Pool() {
			l := space.Limit{Of: "pool " + name, Pool: true, Used: s.Used, Total: s.Used + s.Available, Freeing: state.Freeing}
			if state.Checkpoint {
				l.Blocked = "the pool has a checkpoint, which keeps what is destroyed ('zpool checkpoint -d " + name + "' discards it)"
			}
			limits = append(limits, l)
		}
	}
	return limits, nil
}

// ancestors answers a dataset and those it lies in, up to the pool's own.
func ancestors(name string) []string {
	names := []string{name}
	for {
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return names
		}
		name = name[:i]
		names = append(names, name)
	}
}

// evicted is what a sweep came to.
type evicted struct {
	templates int
	bytes     uint64
}

// sweep evicts cached templates. The caller holds s.cleanup.
func (s *Snapshotter) evict(ctx context.Context, policy space.Policy) (evicted, error) {
	var limits []space.Limit
	if policy.Pressure > 0 {
		var err error
		if limits, err = Limits(ctx, s.pool, s.config.Base); err != nil {
			return evicted{}, err
		}
	}
	over := slices.ContainsFunc(limits, func(l space.Limit) bool { return l.Over(policy.Pressure) })
	if !policy.All && policy.MaxBytes == 0 && !over {
		s.eviction.logProblems(ctx, nil)
		return evicted{}, nil
	}
	if err := s.measureCached(ctx); err != nil {
		return evicted{}, err
	}
	// What cannot go is passed over for what can.
	left := make(map[string]bool)
	var total evicted
	for {
		plan := space.PlanEvictions(s.nodesExcept(ctx, left), limits, policy, time.Now())
		done, stays, err := s.evictPlan(ctx, plan)
		total.templates, total.bytes = total.templates+done.templates, total.bytes+done.bytes
		if err != nil {
			return total, err
		}
		if len(stays) == 0 {
			s.eviction.logProblems(ctx, plan.Problems)
			return total, nil
		}
		for _, dataset := range stays {
			left[dataset] = true
		}
		for i := range limits {
			limits[i].Used -= min(limits[i].Used, done.bytes)
		}
	}
}

// without is the tree of clones as the index knows it, in which some stay.
func (s *Snapshotter) nodesExcept(ctx context.Context, stay map[string]bool) []space.Node {
	nodes := s.index.nodes(s.config.CacheKeep, retryTime(ctx))
	for i, n := range nodes {
		if stay[n.Dataset] {
			nodes[i].Cached, nodes[i].Destroy = false, false
		}
	}
	return nodes
}

// report says once why there is too little room and nothing is evicted for it.
func (e *evictionState) logProblems(ctx context.Context, problems []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := strings.Join(problems, "; ")
	changed := (e.problems == "") != (now == "")
	e.problems = now
	if changed && now != "" {
		log.G(ctx).Warnf("there is little room: %s", now)
	}
}

// measureWarm finds out what comes back of each cached template. It does so once:
// what is in a template never changes.
func (s *Snapshotter) measureCached(ctx context.Context) error {
	for _, t := range s.index.unmeasured() {
		bytes, err := s.pool.Space(ctx, t.Dataset())
		if errors.Is(err, zfs.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		s.index.mu.Lock()
		t.bytes, t.measured = bytes.Used, true
		s.index.mu.Unlock()
	}
	return nil
}

// unmeasured are the cached templates of which it is not known what comes back.
func (x *index) unmeasured() []*template {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var list []*template
	for _, t := range x.templates {
		if t.cached() && !t.measured {
			list = append(list, t)
		}
	}
	return list
}

// evict carries a plan out and answers what is still there of it. A template that
// was revived meanwhile stays, and what it stands on.
func (s *Snapshotter) evictPlan(ctx context.Context, plan space.Plan) (total evicted, stays []string, err error) {
	var names []string
	for _, e := range plan.Evict {
		names = append(names, e.Dataset)
	}
	list, err := s.destroyAll(ctx, names, (*template).cached)
	gone := make(map[string]bool, len(list))
	for _, name := range list {
		gone[name] = true
	}
	for _, e := range plan.Evict {
		if gone[e.Dataset] {
			total.add(ctx, e)
		} else {
			stays = append(stays, e.Dataset)
		}
	}
	return total, stays, err
}

// add counts what was evicted, and tells of a template.
func (v *evicted) add(ctx context.Context, e space.Eviction) {
	v.bytes += e.Bytes
	if !e.Cached {
		return
	}
	v.templates++
	log.G(ctx).WithField("template", e.Dataset).WithField("bytes", e.Bytes).WithField("used", stamp(e.LastUsed)).
		WithField("why", e.Reason).Info("evicted a cached template")
}
