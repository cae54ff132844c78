package index

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// countStandIn adds by to the stand-ins of r's template if r is a stand-in. The caller holds
// the mutex.
func (x *Index) countStandIn(r *Entry, by int) {
	if r.StandInFor != "" && r.Template != nil {
		r.Template.standIns += by
	}
}

// StandInFor returns the template that a stand-in represents. It returns FailedPrecondition
// if that is not the layer's, or the differ read another blob.
func (x *Index) StandInFor(active *Entry, layer layout.Template) (*Template, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if f := x.fillings[active.Dataset]; f != nil && f.wrong {
		return nil, fmt.Errorf("the blob is not that of layer %s, which %s represents: %w", active.StandInFor, active.Dataset, errdefs.ErrFailedPrecondition)
	}
	if t := active.Template; t != nil && t == x.templates[layer.Dataset()] {
		return t, nil
	}
	return nil, fmt.Errorf("%s is no longer a clone of %s; remove the snapshot and prepare it again: %w", active.Dataset, layer.Snapshot(), errdefs.ErrFailedPrecondition)
}

// standInAt returns the record of the stand-in whose runtime is given, or nil. The caller
// holds the mutex.
func (x *Index) standInAt(runtime string) *Entry {
	for _, r := range x.byDataset[runtime] {
		if r.StandInFor != "" && r.Template != nil {
			return r
		}
	}
	return nil
}

// Recognize compares a diff ID with the layer that a stand-in represents. It returns the
// layer's template if its provenance is unknown, otherwise nil.
func (x *Index) Recognize(runtime string, diffID digest.Digest) (unknown *Template, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.standInAt(runtime)
	if r == nil {
		return nil, fmt.Errorf("runtime %s of a stand-in: %w", runtime, errdefs.ErrNotFound)
	}
	if !r.Template.Matches(diffID) {
		x.filling(runtime).wrong = true
		return nil, fmt.Errorf("the blob has the diff ID %s, which is not that of layer %s, which %s represents: %w",
			diffID, r.StandInFor, runtime, errdefs.ErrInvalidArgument)
	}
	if r.Template.From.IsKnown() {
		return nil, nil
	}
	return r.Template, nil
}

// StandInAtRuntime returns the provenance of the layer that the stand-in at a runtime
// represents, and whether there is a stand-in.
func (x *Index) StandInAtRuntime(runtime string) (from record.Provenance, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := x.standInAt(runtime)
	if r == nil {
		return record.Provenance{}, false
	}
	return r.Template.From, true
}

// SetProvenance stores the provenance of a template.
func (x *Index) SetProvenance(t *Template, from record.Provenance) {
	x.mu.Lock()
	defer x.mu.Unlock()
	t.From = from
}
