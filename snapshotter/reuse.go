package snapshotter

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/record"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// ReuseMode selects how a layer in the pool is reused if containerd requests it by the label
// containerd.io/snapshot.ref.
type ReuseMode string

// The modes. From ReuseSkip to ReuseOff, each makes more work than the one before.
const (
	// ReuseSkip lets containerd neither fetch nor unpack the layer. Its content store then
	// lacks the blob, so the image cannot be exported or pushed.
	ReuseSkip ReuseMode = "skip"
	// ReuseFetch lets containerd fetch the layer, but does not unpack it again.
	ReuseFetch ReuseMode = "fetch"
	// ReuseOff lets containerd fetch the layer, and unpacks it again.
	ReuseOff ReuseMode = "off"

	// ReuseAuto is ReuseSkip in the namespace of Kubernetes, which pushes no images and
	// needs no blobs, and ReuseFetch in all other namespaces.
	ReuseAuto ReuseMode = "auto"
)

const kubernetesNamespace = "k8s.io"

// ReuseLabel on an extraction requests a mode with more work than the configured one: fetch
// or off. It cannot request less work, because annotations of an image become labels.
const ReuseLabel = "containerd.io/snapshot/zfstpl.reuse-layers"

// Check returns an error if m is not a mode.
func (m ReuseMode) Check() error {
	switch m {
	case ReuseAuto, ReuseFetch, ReuseSkip, ReuseOff:
		return nil
	}
	return fmt.Errorf("%q is not one of %s, %s, %s, %s", string(m), ReuseAuto, ReuseFetch, ReuseSkip, ReuseOff)
}

// in returns the mode of a namespace, with ReuseAuto resolved.
func (m ReuseMode) in(namespace string) ReuseMode {
	if m != ReuseAuto {
		return m
	}
	if namespace == kubernetesNamespace {
		return ReuseSkip
	}
	return ReuseFetch
}

// withLabel returns the mode that a label requests if it makes more work than m, otherwise m.
func (m ReuseMode) withLabel(requested ReuseMode) ReuseMode {
	if requested == ReuseOff || requested == ReuseFetch && m == ReuseSkip {
		return requested
	}
	return m
}

// reuseIn returns the configured mode of a namespace.
func (c Config) reuseIn(namespace string) ReuseMode {
	if mode, given := c.ReuseLayersIn[namespace]; given {
		return mode.in(namespace)
	}
	return c.ReuseLayers.in(namespace)
}

// reuseLabel returns the value of ReuseLabel, "" if there is none.
func reuseLabel(info snapshots.Info) (ReuseMode, error) {
	text, given := info.Labels[ReuseLabel]
	if !given || info.Kind != snapshots.KindActive {
		return "", nil
	}
	switch mode := ReuseMode(text); mode {
	case ReuseFetch, ReuseOff:
		return mode, nil
	}
	return "", fmt.Errorf("snapshot %q: label %s is %.80q, but must be %s or %s: %w",
		info.Name, ReuseLabel, text, ReuseFetch, ReuseOff, errdefs.ErrInvalidArgument)
}

// requestedLayer returns the chain ID of the layer that a Prepare requests by label, and the
// mode of its reuse. Without the label it returns ReuseOff.
func (s *Snapshotter) requestedLayer(info snapshots.Info) (chain string, mode ReuseMode) {
	ref := info.Labels[snapshots.LabelSnapshotRef]
	if info.Kind != snapshots.KindActive || !layout.IsChainID(ref) {
		return "", ReuseOff
	}
	requested, _ := reuseLabel(info) // checkLabels has rejected invalid values
	return ref, s.config.reuseIn(layout.Namespace(info.Name)).withLabel(requested)
}

// reuse reuses the layer that r requests if it is in the pool on r's parent: it returns
// AlreadyExists (see skipLayer), or makes r a stand-in. The template of a stand-in is pinned
// until r is in the index or undoReuse is called.
func (s *Snapshotter) reuse(ctx context.Context, r *index.Entry) error {
	chain, mode := s.requestedLayer(r.Info)
	switch mode {
	case ReuseSkip:
		return s.skipLayer(ctx, r, chain)
	case ReuseFetch:
		return s.standIn(ctx, r, chain)
	}
	return nil
}

// standIn makes r a stand-in if the layer is in the pool on r's parent. The runtime becomes
// a clone of the layer's own template, so ZFS keeps the template as long as the runtime
// exists. The differ unpacks nothing into it, and its commit adds a record to the template.
// The parent must have a chain ID: otherwise a diff ID cannot be compared with the layer.
func (s *Snapshotter) standIn(ctx context.Context, r *index.Entry, chain string) error {
	layer, unlock, err := s.lockLayer(ctx, r.Info.Name, chain) // waits while a cleanup destroys it
	if err != nil {
		return err
	}
	defer unlock()
	if t := s.index.PinLayer(layer, r.Template); t != nil {
		r.Template, r.StandInFor = t, chain
	}
	return nil
}

// undoReuse unpins the template of a stand-in that could not be written because of err. If
// the template is missing in the pool, undoReuse removes it from the index, makes r an
// ordinary extraction and returns true.
func (s *Snapshotter) undoReuse(ctx context.Context, r *index.Entry, err error) (retry bool) {
	if r.StandInFor == "" {
		return false
	}
	t := r.Template
	s.index.Unpin(t)
	if !errors.Is(err, zfs.ErrNotFound) {
		return false
	}
	if _, gone := s.pool.Space(ctx, t.Dataset()); !s.index.DropLost(t, gone) {
		return false
	}
	log.G(ctx).WithField("template", t.Dataset()).Warn("cached template is missing; unpacking the layer again")
	r.Template, r.StandInFor = t.Parent, ""
	return true
}

// joinLayer is destination for a stand-in: the commit adds a record to the layer's template,
// or fails. A stand-in never becomes a template, because its runtime is not a clone of its
// parent's template. What other programs wrote into the runtime is destroyed with it.
func (s *Snapshotter) joinLayer(ctx context.Context, r, active *index.Entry) (into layout.Template, unlock func(), err error) {
	if !s.makesLayer(ctx, r, active) {
		return into, nil, fmt.Errorf("commit of %q as %q: the snapshot represents layer %s, which is in the pool, and cannot be committed as another; prepare a snapshot on the committed layer to change it: %w",
			active.Info.Name, r.Info.Name, active.StandInFor, errdefs.ErrFailedPrecondition)
	}
	into, unlock, err = s.lockLayer(ctx, r.Info.Name, active.StandInFor)
	if err != nil {
		return into, nil, err
	}
	if r.Template, err = s.index.StandInFor(active, into); err != nil {
		unlock()
		return into, nil, fmt.Errorf("commit of %q as %q: %w", active.Info.Name, r.Info.Name, err)
	}
	return into, unlock, nil
}

// StandIn reports whether a runtime is a stand-in, into which nothing must be unpacked. It
// returns the layer's diff ID and the digest of the blob from which the layer was unpacked,
// as far as they are known.
func (s *Snapshotter) StandIn(runtime string) (diffID, blob digest.Digest, ok bool) {
	from, ok := s.index.StandInAtRuntime(runtime)
	return from.DiffID, from.Blob, ok
}

// Recognize compares a blob with the layer that a stand-in represents. If the diff ID is not
// that of the layer, it returns InvalidArgument, and the stand-in can no longer be committed.
// If the provenance of the template is unknown, Recognize writes it.
func (s *Snapshotter) Recognize(ctx context.Context, runtime string, diffID, blob digest.Digest) error {
	return detachErr(ctx, s.gate, func(ctx context.Context) error {
		t, err := s.index.Recognize(runtime, diffID)
		if err != nil || t == nil {
			return err
		}
		from := record.Provenance{DiffID: diffID, Blob: blob}
		if blob.Validate() != nil {
			from.Blob = ""
		}
		if err := s.write(ctx, from.Set(t.Dataset()), s.pool.Apply); err != nil {
			// The blob is that of the layer all the same. The next pull compares it again.
			log.G(ctx).WithError(err).WithField("template", t.Dataset()).Warn("failed to write provenance of template")
			return nil
		}
		s.index.SetProvenance(t, from)
		return nil
	})
}
