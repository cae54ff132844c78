package snapshotter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// CheckInvariants checks those invariants of docs/design.md that a listing of a base shows.
// It returns an error that describes all violations, or nil. It is a pure function. While
// a snapshotter runs, it may report partially written removals.
func CheckInvariants(base layout.Base, list []zfs.Dataset) error {
	c := check{base: base, committed: make(map[string]bool), names: make(map[string]string), origins: make(map[string]string)}
	for _, d := range list {
		c.read(d)
	}
	for _, r := range c.records {
		if r.info.Parent != "" && !c.committed[r.info.Parent] {
			c.fail("record %q on %s has parent %q, which is not a committed record", r.info.Name, r.dataset, r.info.Parent)
		}
		c.standIn(r)
	}
	return errors.Join(c.errs...)
}

type check struct {
	base      layout.Base
	records   []*record
	committed map[string]bool   // names of committed records
	names     map[string]string // the dataset with the record of a name
	origins   map[string]string // by dataset, the dataset of its origin
	errs      []error
}

func (c *check) fail(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// read checks one dataset.
func (c *check) read(d zfs.Dataset) {
	if d.Name == c.base.String() || d.Name == c.base.Storage() || d.Name == c.base.Runtime() {
		return
	}
	c.origins[d.Name], _, _ = strings.Cut(d.Origin, "@")
	records, err := readRecords(d)
	if err != nil {
		c.errs = append(c.errs, err)
	}
	for _, r := range records {
		if other, taken := c.names[r.info.Name]; taken {
			c.fail("the name %q has records on %s and on %s", r.info.Name, other, d.Name)
		}
		c.names[r.info.Name] = d.Name
		c.committed[r.info.Name] = r.info.Kind == snapshots.KindCommitted
	}
	c.records = append(c.records, records...)
	if _, ok := c.base.ParseTemplate(d.Name); ok {
		c.template(d, records)
	} else if _, ok := c.base.ParseRuntime(d.Name); ok {
		c.runtime(d, records)
	} else {
		c.fail("%s was not created by zfstpl", d.Name)
	}
}

// standIn checks that a stand-in is a clone of the template of the layer that it
// represents, and that this template is a clone of the template of the stand-in's parent.
func (c *check) standIn(r *record) {
	if r.standInFor == "" {
		return
	}
	layer, _ := c.base.ParseTemplate(c.origins[r.dataset])
	if chain, _ := layer.ChainID(); chain != r.standInFor || r.info.Kind != snapshots.KindActive {
		c.fail("%s %q on %s is a stand-in for layer %s, but a clone of %q", r.info.Kind, r.info.Name, r.dataset, r.standInFor, layer.Dataset())
	}
	parent := c.base.Empty().Dataset()
	if r.info.Parent != "" {
		parent = c.names[r.info.Parent]
	}
	if below := c.origins[layer.Dataset()]; below != parent {
		c.fail("%q on %s has the parent %q on %s, but is a stand-in for a layer on %s", r.info.Name, r.dataset, r.info.Parent, parent, below)
	}
}

// template checks a dataset with the name of a template.
func (c *check) template(d zfs.Dataset, records []*record) {
	if !d.HasSnapshot(layout.Extracted) {
		c.fail("template %s has no @%s", d.Name, layout.Extracted)
	}
	if _, ok := c.base.ParseExtracted(d.Origin); !ok && d.Name != c.base.Empty().Dataset() {
		c.fail("template %s is a clone of %q, which is not a template", d.Name, d.Origin)
	}
	c.provenance(d)
	for _, r := range records {
		if r.info.Kind == snapshots.KindActive {
			c.fail("template %s has the active record %q", d.Name, r.info.Name)
		}
		c.parentless(d, r)
	}
}

// parentless checks a committed record without a parent: it is on a clone of the empty
// template, or it is marked as restored.
func (c *check) parentless(d zfs.Dataset, r *record) {
	onEmpty := d.Origin == c.base.Empty().Snapshot()
	if r.info.Kind == snapshots.KindCommitted && r.info.Parent == "" && !onEmpty && !r.healed {
		c.fail("record %q on %s has no parent, but the template is a clone of %s", r.info.Name, d.Name, d.Origin)
	}
	if r.healed && (r.info.Kind != snapshots.KindCommitted || r.info.Parent != "" || !layout.IsLayerName(r.info.Name)) {
		c.fail("record %q on %s is marked as restored, which only the record of a layer without a parent can be", r.info.Name, d.Name)
	}
}

// provenance checks that a template's diff ID and its parent's chain ID give its chain ID.
func (c *check) provenance(d zfs.Dataset) {
	from := readProvenance(d)
	if !from.isKnown() {
		return
	}
	name, _ := c.base.ParseTemplate(d.Name)
	parent, _ := c.base.ParseExtracted(d.Origin)
	if !isLayerOn(name, parent, from.diffID) {
		c.fail("template %s, a clone of %s, has the diff ID %s, which gives another chain ID", d.Name, d.Origin, from.diffID)
	}
}

// runtime checks a dataset with the name of a runtime.
func (c *check) runtime(d zfs.Dataset, records []*record) {
	if len(records) > 1 || len(records) == 1 && records[0].info.Kind != snapshots.KindActive {
		c.fail("runtime %s has %d records: it must have one active record, or none if it is garbage", d.Name, len(records))
	}
	if _, ok := c.base.ParseExtracted(d.Origin); !ok {
		c.fail("runtime %s is a clone of %q, which is not a template", d.Name, d.Origin)
	}
	if d.HasSnapshot(layout.Extracted) {
		c.fail("runtime %s has residue of a commit, @%s", d.Name, layout.Extracted)
	}
}
