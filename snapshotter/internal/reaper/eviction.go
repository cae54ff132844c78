package reaper

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// evictionState is kept between evictions.
type evictionState struct {
	lastCheck atomic.Int64 // last pressure check for a Prepare or Apply; Unix nanoseconds

	mu       sync.Mutex
	problems string // that were logged last
}

// evicted is the result of an eviction or a cleanup.
type evicted struct {
	templates int    // destroyed cached templates
	bytes     uint64 // that they freed
}

// evict evicts cached templates by policy. The caller holds r.cleanup.
func (r *Reaper) evict(ctx context.Context, options Options, policy space.Policy) (evicted, error) {
	var limits []space.Limit
	if policy.Pressure > 0 {
		var err error
		if limits, err = inspect.Limits(ctx, r.pool, r.config.Base); err != nil {
			return evicted{}, err
		}
	}
	over := slices.ContainsFunc(limits, func(l space.Limit) bool { return l.Over(policy.Pressure) })
	if !policy.All && policy.MaxBytes == 0 && !over {
		r.eviction.logProblems(ctx, nil)
		return evicted{}, nil
	}
	if err := r.measureCached(ctx); err != nil {
		return evicted{}, err
	}
	// Where a template cannot be destroyed, another is evicted in its place.
	left := make(map[string]bool)
	var total evicted
	for {
		plan := space.PlanEvictions(r.nodesExcept(left, options.retryTime()), limits, policy, time.Now())
		done, stays, err := r.evictPlan(ctx, options, plan)
		total.templates, total.bytes = total.templates+done.templates, total.bytes+done.bytes
		if err != nil {
			return total, err
		}
		if len(stays) == 0 {
			r.eviction.logProblems(ctx, plan.Problems)
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

// nodesExcept returns the tree of clones in the index, in which the datasets in stay are
// neither destroyed nor evicted.
func (r *Reaper) nodesExcept(stay map[string]bool, now time.Time) []space.Node {
	nodes := r.Index.Nodes(r.config.CacheKeep, now)
	for i, n := range nodes {
		if stay[n.Dataset] {
			nodes[i].Cached, nodes[i].Destroy = false, false
		}
	}
	return nodes
}

// logProblems logs why nothing is evicted for a limit. It logs again only after it was
// called without problems.
func (e *evictionState) logProblems(ctx context.Context, problems []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := strings.Join(problems, "; ")
	changed := (e.problems == "") != (now == "")
	e.problems = now
	if changed && now != "" {
		log.G(ctx).WithField("reason", now).Warn("not evicting cached templates under pressure")
	}
}

// measureCached measures the space that each cached template would free. It measures a
// template once, because a template never changes.
func (r *Reaper) measureCached(ctx context.Context) error {
	for _, t := range r.Index.Unmeasured() {
		bytes, err := r.pool.Space(ctx, t.Dataset())
		if errors.Is(err, zfs.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		r.Index.SetBytes(t, bytes.Used)
	}
	return nil
}

// evictPlan executes a plan and returns the datasets that are left. A template that came
// into use in the meantime stays, and so does its origin.
func (r *Reaper) evictPlan(ctx context.Context, options Options, plan space.Plan) (total evicted, stays []string, err error) {
	var names []string
	for _, e := range plan.Evict {
		names = append(names, e.Dataset)
	}
	list, err := r.destroyAll(ctx, options, names, (*index.Template).Cached)
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

// add counts an eviction, and logs it if it is that of a template.
func (v *evicted) add(ctx context.Context, e space.Eviction) {
	v.bytes += e.Bytes
	if !e.Cached {
		return
	}
	v.templates++
	log.G(ctx).WithField("template", e.Dataset).WithField("bytes", e.Bytes).WithField("last_used", layout.FormatTime(e.LastUsed)).
		WithField("reason", e.Reason).Info("evicted cached template")
}
