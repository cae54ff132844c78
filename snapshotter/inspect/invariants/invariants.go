// Package invariants checks the invariants of docs/design.md in a listing of a base. It is for
// tests, and the product does not use it.
package invariants

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Check checks those invariants that a listing of a base shows. It returns an error that
// describes all violations, or nil. It is a pure function. While a snapshotter runs, it may
// report partially written removals.
func Check(base layout.Base, list []zfs.Dataset) error {
	c := check{base: base, committed: make(map[string]bool), names: make(map[string]string), origins: make(map[string]string)}
	for _, d := range list {
		c.read(d)
	}
	for _, r := range c.records {
		if r.Info.Parent != "" && !c.committed[r.Info.Parent] {
			c.fail("record %q on %s has parent %q, which is not a committed record", r.Info.Name, r.Dataset, r.Info.Parent)
		}
		c.standIn(r)
	}
	return errors.Join(c.errs...)
}

type check struct {
	base      layout.Base
	records   []*record.Record
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
	records, err := record.Read(d)
	if err != nil {
		c.errs = append(c.errs, err)
	}
	for _, r := range records {
		if other, taken := c.names[r.Info.Name]; taken {
			c.fail("the name %q has records on %s and on %s", r.Info.Name, other, d.Name)
		}
		c.names[r.Info.Name] = d.Name
		c.committed[r.Info.Name] = r.Info.Kind == snapshots.KindCommitted
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
func (c *check) standIn(r *record.Record) {
	if r.StandInFor == "" {
		return
	}
	layer, _ := c.base.ParseTemplate(c.origins[r.Dataset])
	if chain, _ := layer.ChainID(); chain != r.StandInFor || r.Info.Kind != snapshots.KindActive {
		c.fail("%s %q on %s is a stand-in for layer %s, but a clone of %q", r.Info.Kind, r.Info.Name, r.Dataset, r.StandInFor, layer.Dataset())
	}
	parent := c.base.Empty().Dataset()
	if r.Info.Parent != "" {
		parent = c.names[r.Info.Parent]
	}
	if below := c.origins[layer.Dataset()]; below != parent {
		c.fail("%q on %s has the parent %q on %s, but is a stand-in for a layer on %s", r.Info.Name, r.Dataset, r.Info.Parent, parent, below)
	}
}

// template checks a dataset with the name of a template.
func (c *check) template(d zfs.Dataset, records []*record.Record) {
	if !d.HasSnapshot(layout.Extracted) {
		c.fail("template %s has no @%s", d.Name, layout.Extracted)
	}
	if _, ok := c.base.ParseExtracted(d.Origin); !ok && d.Name != c.base.Empty().Dataset() {
		c.fail("template %s is a clone of %q, which is not a template", d.Name, d.Origin)
	}
	c.provenance(d)
	for _, r := range records {
		if r.Info.Kind == snapshots.KindActive {
			c.fail("template %s has the active record %q", d.Name, r.Info.Name)
		}
		c.parentless(d, r)
	}
}

// parentless checks a committed record without a parent: it is on a clone of the empty
// template, or it is marked as restored.
func (c *check) parentless(d zfs.Dataset, r *record.Record) {
	onEmpty := d.Origin == c.base.Empty().Snapshot()
	if r.Info.Kind == snapshots.KindCommitted && r.Info.Parent == "" && !onEmpty && !r.Healed {
		c.fail("record %q on %s has no parent, but the template is a clone of %s", r.Info.Name, d.Name, d.Origin)
	}
	if r.Healed && (r.Info.Kind != snapshots.KindCommitted || r.Info.Parent != "" || !layout.IsLayerName(r.Info.Name)) {
		c.fail("record %q on %s is marked as restored, which only the record of a layer without a parent can be", r.Info.Name, d.Name)
	}
}

// provenance checks that a template's diff ID and its parent's chain ID give its chain ID.
func (c *check) provenance(d zfs.Dataset) {
	from := record.ReadProvenance(d)
	if !from.IsKnown() {
		return
	}
	name, _ := c.base.ParseTemplate(d.Name)
	parent, _ := c.base.ParseExtracted(d.Origin)
	if !record.IsLayerOn(name, parent, from.DiffID) {
		c.fail("template %s, a clone of %s, has the diff ID %s, which gives another chain ID", d.Name, d.Origin, from.DiffID)
	}
}

// runtime checks a dataset with the name of a runtime.
func (c *check) runtime(d zfs.Dataset, records []*record.Record) {
	if len(records) > 1 || len(records) == 1 && records[0].Info.Kind != snapshots.KindActive {
		c.fail("runtime %s has %d records: it must have one active record, or none if it is garbage", d.Name, len(records))
	}
	if _, ok := c.base.ParseExtracted(d.Origin); !ok {
		c.fail("runtime %s is a clone of %q, which is not a template", d.Name, d.Origin)
	}
	if d.HasSnapshot(layout.Extracted) {
		c.fail("runtime %s has residue of a commit, @%s", d.Name, layout.Extracted)
	}
}
