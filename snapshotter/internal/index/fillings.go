package index

import (
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
)

// filling records what was unpacked into a runtime.
type filling struct {
	attempts int
	complete record.Provenance // of the last attempt that succeeded
	wrong    bool              // of a stand-in: the blob was that of another layer
}

// filling returns the filling of a runtime. The caller holds the mutex.
func (x *Index) filling(runtime string) *filling {
	f := x.fillings[runtime]
	if f == nil {
		f = &filling{}
		x.fillings[runtime] = f
	}
	return f
}

// ProvenanceOf returns the provenance of a template t that a commit of runtime creates. It
// is known only if exactly one layer was unpacked into the runtime, completely, and the
// layer is that of the template's name.
func (x *Index) ProvenanceOf(runtime string, t *Template) record.Provenance {
	x.mu.RLock()
	defer x.mu.RUnlock()
	f := x.fillings[runtime]
	if f == nil || f.attempts != 1 || f.complete.DiffID.Validate() != nil || f.complete.Blob.Validate() != nil || !t.Matches(f.complete.DiffID) {
		return record.Provenance{}
	}
	return f.complete
}

// Fill records that an unpack of a layer into a runtime begins. filled records that it has
// succeeded. It does nothing if there is no such runtime.
func (x *Index) Fill(runtime string) (filled func(diffID, blob digest.Digest)) {
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
