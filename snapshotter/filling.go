package snapshotter

import (
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
)

// matches reports whether the chain ID of a template is that of the layer DiffID on the
// template's parent. It needs no lock: name and parent of a template do not change.
func (t *template) matches(diffID digest.Digest) bool {
	return t.parent != nil && record.IsLayerOn(t.Template, t.parent.Template, diffID)
}

// filling records what was unpacked into a runtime.
type filling struct {
	attempts int
	complete record.Provenance // of the last attempt that succeeded
	wrong    bool              // of a stand-in: the blob was that of another layer
}

// filling returns the filling of a runtime. The caller holds the mutex.
func (x *index) filling(runtime string) *filling {
	f := x.fillings[runtime]
	if f == nil {
		f = &filling{}
		x.fillings[runtime] = f
	}
	return f
}

// Fill records that an unpack of a layer into a runtime begins. The caller calls filled
// when the layer is completely unpacked, with its diff ID and the digest of the blob. A
// commit of the runtime then writes them to the template. They are in memory only, so they
// are lost if the daemon is restarted before the commit.
func (s *Snapshotter) Fill(runtime string) (filled func(diffID, blob digest.Digest)) {
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.isRuntime(runtime) {
		return func(_, _ digest.Digest) {}
	}
	f := x.filling(runtime)
	f.attempts++
	return func(diffID, blob digest.Digest) {
		x.mu.Lock()
		defer x.mu.Unlock()
		f.complete = record.Provenance{DiffID: diffID, Blob: blob}
	}
}

// isRuntime reports whether a dataset is the runtime of an active snapshot. The caller holds
// the mutex.
func (x *index) isRuntime(dataset string) bool {
	for _, r := range x.byDataset[dataset] {
		if r.template != nil && r.Dataset != r.template.Dataset() {
			return true
		}
	}
	return false
}

// provenanceOf returns the provenance of a template t that a commit of runtime creates. It
// is known only if exactly one layer was unpacked into the runtime, completely, and the
// layer is that of the template's name.
func (x *index) provenanceOf(runtime string, t *template) record.Provenance {
	x.mu.RLock()
	defer x.mu.RUnlock()
	f := x.fillings[runtime]
	if f == nil || f.attempts != 1 || f.complete.DiffID.Validate() != nil || f.complete.Blob.Validate() != nil || !t.matches(f.complete.DiffID) {
		return record.Provenance{}
	}
	return f.complete
}
