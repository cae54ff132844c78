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
func (r *Reaper) evict(ctx context.Context, options Options, policy space.Policy, total *evicted) error {
	var limits []space.Limit
	if policy.Pressure > 0 {
		var err error
		if limits, err = inspect.Limits(ctx, r.pool, r.config.Base); err != nil {
			return err
		}
	}
	over := slices.ContainsFunc(limits, func(l space.Limit) bool { return l.Over(policy.Pressure) })
	if !policy.All && policy.MaxBytes == 0 && !over {
		r.eviction.logProblems(ctx, nil)
		return nil
	}
	if policy.All || over {
		r.GiveUpReady() // before anything cached
	}
	problems, err := r.execute(ctx, options, limits, policy, total)
	if err == nil {
		r.eviction.logProblems(ctx, problems)
	}
	return err
}

// execute destroys what a plan by policy lists, and adds it to total. Where a dataset cannot
// be destroyed, it plans again without that, so that another is evicted in its place. It
// returns the problems of the last plan.
func (r *Reaper) execute(ctx context.Context, options Options, limits []space.Limit, policy space.Policy, total *evicted) (problems []string, err error) {
	policy.Retry = options.ignoreBackoff
	left := make(map[string]bool)
	for {
		plan, err := r.plan(ctx, left, limits, policy)
		if err != nil {
			return nil, err
		}
		gone, stays, err := r.executePlan(ctx, options, policy, plan)
		total.templates, total.bytes = total.templates+gone.templates, total.bytes+gone.bytes
		if err != nil || len(stays) == 0 {
			return plan.Problems, err
		}
		for _, dataset := range stays {
			left[dataset] = true
		}
		for i := range limits {
			limits[i].Used -= min(limits[i].Used, gone.bytes)
		}
	}
}

// plan returns a plan in which the datasets in stay are not destroyed. It measures the cached
// templates if the plan depends on their size or the log names it.
func (r *Reaper) plan(ctx context.Context, stay map[string]bool, limits []space.Limit, policy space.Policy) (space.Plan, error) {
	planned := func() space.Plan {
		nodes := r.Index.PlanNodes()
		for i, n := range nodes {
			if stay[n.Dataset] {
				nodes[i].Cached, nodes[i].Garbage = false, false
			}
		}
		return space.NewPlan(nodes, limits, policy, time.Now())
	}
	plan := planned()
	if len(limits) == 0 && policy.MaxBytes == 0 && !plan.EvictsCached() {
		return plan, nil
	}
	if err := r.measureCached(ctx); err != nil {
		return plan, err
	}
	return planned(), nil
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

// executePlan destroys the datasets of a plan, and returns those that are left. A template that
// came into use in the meantime stays, and so does its origin.
func (r *Reaper) executePlan(ctx context.Context, options Options, policy space.Policy, plan space.Plan) (total evicted, stays []string, err error) {
	var names []string
	ahead := make(map[string]bool) // of their age
	for _, e := range plan.Evict {
		names = append(names, e.Dataset)
		ahead[e.Dataset] = !policy.IsDue(e.Node, time.Now())
	}
	may := func(n space.Node) bool { return n.Cached && ahead[n.Dataset] || policy.IsDue(n, time.Now()) }
	list, err := r.destroyAll(ctx, options, names, may)
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

// add counts the eviction of a template that a pull could have used again, and logs it.
func (v *evicted) add(ctx context.Context, e space.Eviction) {
	if !e.Cached || e.Garbage {
		return
	}
	v.bytes += e.Bytes
	v.templates++
	log.G(ctx).WithField("template", e.Dataset).WithField("bytes", e.Bytes).WithField("last_used", layout.FormatTime(e.Since)).
		WithField("reason", e.Reason).Info("evicted cached template")
}
