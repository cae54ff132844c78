package snapshotter

import (
	"time"

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

// isLayerOn reports whether the chain ID of the template t is that of the layer diffID on
// parent.
func isLayerOn(t, parent layout.Template, diffID digest.Digest) bool {
	below, known := parent.ChainID()
	chain, named := t.ChainID()
	return !t.IsEmpty() && known && named && layout.ChainID(below, diffID.String()) == chain
}

// lastUsed returns when a template's last record was removed, or when the template was
// created if that is not known.
func lastUsed(d zfs.Dataset) time.Time {
	if t, err := time.Parse(time.RFC3339, d.Props[propLastUsed]); err == nil {
		return t
	}
	return d.Created
}
