package record

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Provenance is the layer from which a template was unpacked. It is in properties of the
// template, independent of records.
type Provenance struct {
	DiffID digest.Digest // of the uncompressed layer; "" if unknown
	Blob   digest.Digest // of the blob in containerd's content store; "" if unknown
}

// IsKnown reports whether the layer is known.
func (p Provenance) IsKnown() bool { return p.DiffID != "" }

// Set returns the ops that write p to the properties of a template.
func (p Provenance) Set(dataset string) []zfs.Op {
	var ops []zfs.Op
	if p.DiffID != "" {
		ops = append(ops, zfs.Set(dataset, DiffIDProperty, p.DiffID.String()))
	}
	if p.Blob != "" {
		ops = append(ops, zfs.Set(dataset, BlobProperty, p.Blob.String()))
	}
	return ops
}

// ReadProvenance returns the provenance in the properties of a template. It ignores a value
// that is not a digest, and the blob if there is no diff ID.
func ReadProvenance(d zfs.Dataset) Provenance {
	p := Provenance{DiffID: digest.Digest(d.Props[DiffIDProperty]), Blob: digest.Digest(d.Props[BlobProperty])}
	if p.DiffID.Validate() != nil {
		return Provenance{}
	}
	if p.Blob.Validate() != nil {
		p.Blob = ""
	}
	return p
}

// IsLayerOn reports whether the chain ID of the template t is that of the layer DiffID on
// parent.
func IsLayerOn(t, parent layout.Template, diffID digest.Digest) bool {
	below, known := parent.ChainID()
	chain, named := t.ChainID()
	return !t.IsEmpty() && known && named && layout.ChainID(below, diffID.String()) == chain
}

// LastUsed returns when a template's last record was removed, or when the template was
// created if that is not known.
func LastUsed(d zfs.Dataset) time.Time {
	if t, err := time.Parse(time.RFC3339, d.Props[LastUsedProperty]); err == nil {
		return t
	}
	return d.Created
}
