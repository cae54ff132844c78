package snapshotter

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// ReuseMode says what becomes of a layer that containerd asks for, by the label
// containerd.io/snapshot.ref, and that is in the pool.
type ReuseMode string

// The modes. Each makes more work than the one before it.
const (
	// ReuseSkip: containerd neither fetches the layer nor unpacks it. Its content store
	// then lacks the blob, and the image cannot be exported or pushed.
	ReuseSkip ReuseMode = "skip"
	// ReuseFetch: containerd fetches the layer, and it is not unpacked again.
	ReuseFetch ReuseMode = "fetch"
	// ReuseOff: containerd fetches the layer, and it is unpacked again.
	ReuseOff ReuseMode = "off"

	// ReuseAuto is ReuseSkip in the namespace of Kubernetes, which pushes nothing and
	// can do without blobs, and ReuseFetch in all others.
	ReuseAuto ReuseMode = "auto"
)

const kubernetesNamespace = "k8s.io"

// ReuseLabel on an extraction asks for more work than the configuration: fetch or off.
// It cannot ask for less, because annotations of an image arrive as labels.
const ReuseLabel = "containerd.io/snapshot/zfstpl.reuse-layers"

// Check rejects a word that is no mode.
func (m ReuseMode) Check() error {
	switch m {
	case "", ReuseAuto, ReuseFetch, ReuseSkip, ReuseOff:
		return nil
	}
	return fmt.Errorf("%q is none of %s, %s, %s, %s", string(m), ReuseAuto, ReuseFetch, ReuseSkip, ReuseOff)
}

// in is the mode that m means in a namespace.
func (m ReuseMode) in(namespace string) ReuseMode {
	if m != ReuseAuto && m != "" {
		return m
	}
	if namespace == kubernetesNamespace {
		return ReuseSkip
	}
	return ReuseFetch
}

// withLabel is the mode that m and what a label asks for make.
func (m ReuseMode) withLabel(asked ReuseMode) ReuseMode {
	if asked == ReuseOff || asked == ReuseFetch && m == ReuseSkip {
		return asked
	}
	return m
}

func (c Config) checkReuse() error {
	if err := c.ReuseLayers.Check(); err != nil {
		return fmt.Errorf("reuse of layers: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for namespace, mode := range c.ReuseLayersIn {
		if err := mode.Check(); err != nil {
			return fmt.Errorf("reuse of layers in namespace %q: %w: %w", namespace, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// reuseIn is the configured mode of a namespace.
func (c Config) reuseIn(namespace string) ReuseMode {
	if mode, given := c.ReuseLayersIn[namespace]; given {
		return mode.in(namespace)
	}
	return c.ReuseLayers.in(namespace)
}

// reuseLabel is what ReuseLabel asks for, "" where it is not there.
func reuseLabel(info snapshots.Info) (ReuseMode, error) {
	text, given := info.Labels[ReuseLabel]
	if !given || info.Kind != snapshots.KindActive {
		return "", nil
	}
	switch mode := ReuseMode(text); mode {
	case ReuseFetch, ReuseOff:
		return mode, nil
	}
	return "", fmt.Errorf("snapshot %q: label %s is %.80q, and neither %s nor %s: %w",
		info.Name, ReuseLabel, text, ReuseFetch, ReuseOff, errdefs.ErrInvalidArgument)
}

// asks is the chain ID of the layer that a Prepare asks for by label, and how it may be
// reused. Without the label there is no layer, and nothing is reused.
func (s *Snapshotter) requestedLayer(info snapshots.Info) (chain string, mode ReuseMode) {
	ref := info.Labels[snapshots.LabelSnapshotRef]
	if info.Kind != snapshots.KindActive || !layout.IsChainID(ref) {
		return "", ReuseOff
	}
	asked, _ := reuseLabel(info) // checkLabels has rejected any other value
	return ref, s.config.reuseIn(layout.Namespace(info.Name)).withLabel(asked)
}

// reuse looks for the layer that r is to become. Where it is in the pool on r's parent
// it returns AlreadyExists (see revive), or makes r a stand-in, whose template is
// pinned until r is in the index or unreuse is called.
func (s *Snapshotter) reuse(ctx context.Context, r *record) error {
	chain, mode := s.requestedLayer(r.info)
	switch mode {
	case ReuseSkip:
		return s.skipLayer(ctx, r, chain)
	case ReuseFetch:
		return s.standIn(ctx, r, chain)
	}
	return nil
}

// standIn makes r stand for a layer that is in the pool: its runtime is a clone of the
// layer's own template, so that ZFS keeps that template for as long as the runtime
// exists. The differ then unpacks nothing into it, and its commit joins the template.
// Only a layer is taken that a diff ID can be compared with: one on a parent that has
// a chain ID.
func (s *Snapshotter) standIn(ctx context.Context, r *record, chain string) error {
	layer, err := s.layer(ctx, r.info.Name, chain)
	if err != nil {
		return err
	}
	unlock, err := s.data.lock(ctx, layer.Dataset()) // it may be just being destroyed
	if err != nil {
		return err
	}
	defer unlock()
	if t := s.index.pinLayer(layer, r.template); t != nil {
		r.template, r.standInFor = t, chain
	}
	return nil
}

// pinLayer pins the template of a layer if it stands on a parent with a chain ID.
func (x *index) pinLayer(layer layout.Template, parent *template) *template {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.templates[layer.Dataset()]
	if t == nil || t.parent != parent {
		return nil
	}
	if _, ok := parent.ChainID(); !ok {
		return nil
	}
	t.pins++
	return t
}

// unreuse takes back what reuse did for a record that could not be written. It reports
// whether that was because the layer's template was destroyed by other hands: then the
// template is forgotten, and the layer can be unpacked.
func (s *Snapshotter) undoReuse(ctx context.Context, r *record, err error) (again bool) {
	if r.standInFor == "" {
		return false
	}
	t := r.template
	s.index.unpin(t)
	if !errors.Is(err, zfs.ErrNotFound) {
		return false
	}
	if _, gone := s.pool.Space(ctx, t.Dataset()); !s.index.dropLost(t, gone) {
		return false
	}
	log.G(ctx).WithField("template", t.Dataset()).Warn("a cached template was destroyed by other hands; the layer is unpacked again")
	r.template, r.standInFor = t.parent, ""
	return true
}

// countStandIn counts an active record that stands for a layer, or no longer does: its
// template is in use. It wants the mutex held.
func (x *index) countStandIn(r *record, by int) {
	if r.standInFor != "" && r.template != nil {
		r.template.standIns += by
	}
}

// joinLayer decides what the commit of a stand-in comes to: one more record on the
// layer's template, or an error. Its parent's record is not what its content stands
// on, so it never becomes a template. The lock of the template's dataset is held until
// unlock. What other programs wrote into the runtime is not part of the layer and is
// dropped with it.
func (s *Snapshotter) joinLayer(ctx context.Context, r, active *record) (into layout.Template, unlock func(), err error) {
	if !s.makesLayer(ctx, r, active) {
		return into, nil, fmt.Errorf("commit of %q as %q: the snapshot stands for layer %s, which is in the pool, and becomes nothing else; prepare a snapshot on the committed layer to change it: %w",
			active.info.Name, r.info.Name, active.standInFor, errdefs.ErrFailedPrecondition)
	}
	layer, err := s.layer(ctx, r.info.Name, active.standInFor)
	if err != nil {
		return into, nil, err
	}
	unlock, err = s.data.lock(ctx, layer.Dataset())
	if err != nil {
		return into, nil, err
	}
	if r.template, err = s.index.standInFor(active, layer); err != nil {
		unlock()
		return into, nil, fmt.Errorf("commit of %q as %q: %w", active.info.Name, r.info.Name, err)
	}
	return layer, unlock, nil
}

// standInFor returns the template that a stand-in stands for, if that is the layer's.
func (x *index) standInFor(active *record, layer layout.Template) (*template, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if f := x.fillings[active.dataset]; f != nil && f.wrong {
		return nil, fmt.Errorf("the blob is not that of layer %s, for which %s stands: %w", active.standInFor, active.dataset, errdefs.ErrFailedPrecondition)
	}
	if t := active.template; t != nil && t == x.templates[layer.Dataset()] {
		return t, nil
	}
	return nil, fmt.Errorf("%s is no clone of %s any more; remove the snapshot and prepare it again: %w", active.dataset, layer.Snapshot(), errdefs.ErrFailedPrecondition)
}

// StandIn reports whether a runtime stands for a layer that is in the pool, so that
// nothing is to be unpacked into it, and of the layer what is known: the digest of it
// uncompressed, and that of the blob which it was unpacked from.
func (s *Snapshotter) StandIn(runtime string) (diffID, blob digest.Digest, ok bool) {
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	r := s.index.standInAt(runtime)
	if r == nil {
		return "", "", false
	}
	return r.template.from.diffID, r.template.from.blob, true
}

// standInAt returns the record of a stand-in, or nil. It wants the mutex held.
func (x *index) standInAt(runtime string) *record {
	for _, r := range x.byDataset[runtime] {
		if r.standInFor != "" && r.template != nil {
			return r
		}
	}
	return nil
}

// Recognize compares a blob with the layer that a runtime stands for. Where the diff ID
// of the blob is another one it returns InvalidArgument, and the runtime can no longer
// be committed. Where the template does not say yet from which layer it was unpacked,
// it says so from then on.
func (s *Snapshotter) Recognize(ctx context.Context, runtime string, diffID, blob digest.Digest) error {
	return detachErr(ctx, s, func(ctx context.Context) error {
		t, err := s.index.recognize(runtime, diffID)
		if err != nil || t == nil {
			return err
		}
		from := provenance{diffID: diffID, blob: blob}
		if blob.Validate() != nil {
			from.blob = ""
		}
		if err := s.pool.Apply(ctx, from.set(t.Dataset())...); err != nil {
			// The layer is the right one all the same, and the next pull finds that out again.
			log.G(ctx).WithError(err).WithField("template", t.Dataset()).Warn("the template does not say from which layer it was unpacked")
			return nil
		}
		s.index.mu.Lock()
		defer s.index.mu.Unlock()
		t.from = from
		return nil
	})
}

// recognize compares a diff ID with the layer that a runtime stands for. It returns the
// layer's template where that does not say yet from which layer it was unpacked.
func (x *index) recognize(runtime string, diffID digest.Digest) (unknown *template, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.standInAt(runtime)
	if r == nil {
		return nil, fmt.Errorf("%s, which stood for a layer: %w", runtime, errdefs.ErrNotFound)
	}
	if !r.template.matches(diffID) {
		x.filling(runtime).wrong = true
		return nil, fmt.Errorf("the blob has the diff ID %s, which is not that of layer %s, for which %s stands: %w",
			diffID, r.standInFor, runtime, errdefs.ErrInvalidArgument)
	}
	if r.template.from.isKnown() {
		return nil, nil
	}
	return r.template, nil
}
