package recovery

import (
	"context"
	"errors"
	"slices"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/internal/state"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Resolution is what a commit with an unknown outcome has left in the pool, and what to do
// about it.
type Resolution struct {
	// Committed reports that the commit took effect, and that nothing has to be done.
	Committed bool
	// Taken reports that another dataset has the name of the commit's template.
	Taken bool
	// Undone reports that the records in the pool are those before the commit, also if a later
	// step failed.
	Undone bool
	// Freed reports that no dataset has that name, also if a later step failed.
	Freed bool

	restore []zfs.Op // write the active record again and remove the committed one
	promote bool     // the commit made the runtime a clone of its template: undo that
	destroy bool     // destroy what the commit made under the template's name
	residue bool     // destroy the runtime's @extracted
}

// Resolve finds out whether a commit took effect, and undoes it if not. It applies the rules
// of a start to the two datasets of the commit.
//
// If late is set, the caller of the commit has seen an error, and may have written to the
// active snapshot since. The commit is then undone although it took effect.
//
// Resolve fails if the pool does not respond or refuses a change; the caller then tries again
// later. The caller holds the lock of the active snapshot's key.
func Resolve(ctx context.Context, pool Pool, base layout.Base, u index.Unresolved, late bool) (Resolution, error) {
	runtime, err := listOne(ctx, pool, u.Runtime)
	if err != nil {
		return Resolution{}, err
	}
	var template *zfs.Dataset
	if u.Commit != nil {
		if template, err = listOne(ctx, pool, u.Commit.Dataset); err != nil {
			return Resolution{}, err
		}
	}
	r, err := resolution(base, u, runtime, template, late)
	if err == nil {
		err = r.execute(ctx, pool, u)
	}
	return r, err
}

// listOne returns a dataset, or nil if it does not exist.
func listOne(ctx context.Context, pool Pool, name string) (*zfs.Dataset, error) {
	list, err := pool.List(ctx, name)
	if errors.Is(err, zfs.ErrNotFound) {
		return nil, nil
	}
	i := slices.IndexFunc(list, func(d zfs.Dataset) bool { return d.Name == name })
	if err != nil || i < 0 {
		return nil, err
	}
	return &list[i], nil
}

// resolution is the pure part of Resolve. A dataset is nil if it does not exist.
func resolution(base layout.Base, u index.Unresolved, runtime, template *zfs.Dataset, late bool) (r Resolution, err error) {
	r.residue = runtime != nil && runtime.HasSnapshot(layout.Extracted)
	if template == nil {
		r.Freed = true
		return r, nil
	}
	st := state.Classify(base, *template)
	took := slices.ContainsFunc(st.Records, func(r *record.Record) bool { return r.ID == u.Commit.ID })
	if took && !late {
		return Resolution{Committed: true}, nil
	}
	if took {
		if r.restore, err = u.Active.Rewrite(); err != nil {
			return r, err
		}
		r.restore = append(r.restore, u.Commit.Clear()...)
	}
	if u.Joined {
		return r, nil
	}
	others := slices.ContainsFunc(st.Records, func(r *record.Record) bool { return r.ID != u.Commit.ID })
	isOrigin := runtime != nil && runtime.Origin == template.Name+"@"+layout.Extracted
	switch {
	case st.State == state.Partial:
		r.destroy = true
	case isOrigin && st.Problem == "" && !others:
		r.promote, r.destroy, r.residue = true, true, true
	default:
		r.Taken = true
	}
	return r, nil
}

// execute undoes a commit.
func (r *Resolution) execute(ctx context.Context, pool Pool, u index.Unresolved) error {
	if r.Committed {
		return nil
	}
	if len(r.restore) > 0 {
		if err := pool.Apply(ctx, r.restore...); err != nil {
			return err
		}
	}
	r.Undone = true
	if u.Ready != "" && r.promote {
		// Otherwise it would be a clone of the runtime's @extracted.
		left, err := pool.Destroy(ctx, layout.Extracted, []string{u.Ready})
		if err := errors.Join(err, left[u.Ready]); err != nil {
			return err
		}
	}
	if r.promote {
		if err := pool.Apply(ctx, zfs.Promote(u.Runtime, u.Commit.Dataset)); err != nil {
			return err
		}
	}
	if r.destroy {
		left, err := pool.Destroy(ctx, layout.Extracted, []string{u.Commit.Dataset})
		if err := errors.Join(err, left[u.Commit.Dataset]); err != nil {
			return err
		}
		r.Freed = true
	}
	if r.residue {
		return pool.DestroySnapshot(ctx, u.Runtime+"@"+layout.Extracted)
	}
	return nil
}
