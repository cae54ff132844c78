package snapshotter

import (
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// provenance is the layer that a template was unpacked from. The template's properties
// hold it for as long as the template exists, whatever records come and go.
type provenance struct {
	diffID digest.Digest // of the uncompressed layer; "" where it is not known
	blob   digest.Digest // of what containerd's store had; "" where it is not known
}

func (p provenance) isKnown() bool { return p.diffID != "" }

// set are the ops that write p on a template.
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

// readProvenance is what the properties of a template say. What is no digest is
// ignored, and without a diff ID so is the rest.
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

// is reports whether a template is the layer of that diff ID on its parent: its chain
// ID says so. The mutex is not needed, for names and parents do not change.
func (t *template) matches(diffID digest.Digest) bool {
	if t.parent == nil || t.IsEmpty() {
		return false
	}
	below, known := t.parent.ChainID()
	chain, named := t.ChainID()
	return known && named && layout.ChainID(below, diffID.String()) == chain
}

// filling is what was unpacked into a runtime since it was made.
type filling struct {
	attempts int
	whole    provenance // of the attempt that ended well
	wrong    bool       // a stand-in: the blob was that of another layer
}

// filling is that of a runtime. It wants the mutex held.
func (x *index) filling(runtime string) *filling {
	f := x.fillings[runtime]
	if f == nil {
		f = &filling{}
		x.fillings[runtime] = f
	}
	return f
}

// Fill notes that a layer is about to be unpacked into a runtime. What it returns
// notes that all of the layer is in it: the digest of the uncompressed layer, and that
// of the blob it was read from. The template that a commit makes of the runtime then
// says where it comes from. It does not where the daemon was restarted in between.
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
		f.whole = provenance{diffID: diffID, blob: blob}
	}
}

// isRuntime reports whether a dataset is that of an active snapshot. It wants the
// mutex held.
func (x *index) isRuntime(dataset string) bool {
	for _, r := range x.byDataset[dataset] {
		if r.template != nil && r.dataset != r.template.Dataset() {
			return true
		}
	}
	return false
}

// provenanceOf is what is known of a runtime that is to become a template: the layer
// that it was filled with once and completely, if that is the layer which the template
// is named by.
func (x *index) provenanceOf(runtime string, t *template) provenance {
	x.mu.RLock()
	defer x.mu.RUnlock()
	f := x.fillings[runtime]
	if f == nil || f.attempts != 1 || f.whole.diffID.Validate() != nil || f.whole.blob.Validate() != nil || !t.matches(f.whole.diffID) {
		return provenance{}
	}
	return f.whole
}
