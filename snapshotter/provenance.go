package snapshotter

import (
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// provenance is the layer from which a template was unpacked. It is in properties of the
// template, independent of records.
type provenance struct {
	diffID digest.Digest // of the uncompressed layer; "" if unknown
	blob   digest.Digest // of the blob in containerd's content store; "" if unknown
}

func (p provenance) isKnown() bool { return p.diffID != "" }

// set returns the ops that write p to the properties of a template.
func (p provenance) set(dataset string) []zfs.Op {
	var ops []zfs.Op
	if p.diffID != "" {
		ops = append(ops, zfs.Set(dataset, propDiffID, p.diffID.String()))
	}
	if p.blob != "" {
		ops = append(ops, zfs.Set(dataset, propBlob, p.blob.String()))
	}
	return ops
}

// readProvenance returns the provenance in the properties of a template. It ignores a value
// that is not a digest, and the blob if there is no diff ID.
func readProvenance(d zfs.Dataset) provenance {
	p := provenance{diffID: digest.Digest(d.Props[propDiffID]), blob: digest.Digest(d.Props[propBlob])}
	if p.diffID.Validate() != nil {
		return provenance{}
	}
	if p.blob.Validate() != nil {
		p.blob = ""
	}
	return p
}

// matches reports whether the chain ID of a template is that of the layer diffID on the
// template's parent. It needs no lock: name and parent of a template do not change.
func (t *template) matches(diffID digest.Digest) bool {
	if t.parent == nil || t.IsEmpty() {
		return false
	}
	below, known := t.parent.ChainID()
	chain, named := t.ChainID()
	return known && named && layout.ChainID(below, diffID.String()) == chain
}

// filling records what was unpacked into a runtime.
type filling struct {
	attempts int
	complete provenance // of the last attempt that succeeded
	wrong    bool       // of a stand-in: the blob was that of another layer
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
		f.complete = provenance{diffID: diffID, blob: blob}
	}
}

// isRuntime reports whether a dataset is the runtime of an active snapshot. The caller holds
// the mutex.
func (x *index) isRuntime(dataset string) bool {
	for _, r := range x.byDataset[dataset] {
		if r.template != nil && r.dataset != r.template.Dataset() {
			return true
		}
	}
	return false
}

// provenanceOf returns the provenance of a template t that a commit of runtime creates. It
// is known only if exactly one layer was unpacked into the runtime, completely, and the
// layer is that of the template's name.
func (x *index) provenanceOf(runtime string, t *template) provenance {
	x.mu.RLock()
	defer x.mu.RUnlock()
	f := x.fillings[runtime]
	if f == nil || f.attempts != 1 || f.complete.diffID.Validate() != nil || f.complete.blob.Validate() != nil || !t.matches(f.complete.diffID) {
		return provenance{}
	}
	return f.complete
}
