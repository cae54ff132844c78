package diff

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/epoch"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Pool is what a Service needs of ZFS.
type Pool interface {
	Objects
	TakeTemporary(ctx context.Context, filesystem string) (*zfs.TemporarySnapshot, error)
	AttachRoot(ctx context.Context, snapshot string) (*os.File, error)
	AttachWritable(ctx context.Context, filesystem string) (*os.File, error)
}

// Contents is where layers are kept: containerd's store and its leases.
type Contents struct {
	Store  content.Store
	Leases leases.Manager
	// Setting names for messages the setting that says where they are, and its value.
	// Empty: there is none.
	Setting string
}

// Service makes layers of snapshots and snapshots of layers, for containerd. It
// does so for the snapshots of one base; of any others it says that it cannot
// (ErrNotImplemented), and containerd asks its next differ. Safe for use by any
// number of goroutines.
type Service struct {
	base        layout.Base
	pool        Pool
	contents    Contents
	runtimes    Extractions
	second      retryLimiter // see again
	unavailable atomic.Bool  // the store could not be used, see passOn
}

// Runtimes is whoever has the snapshots. *snapshotter.Snapshotter is one.
type Extractions interface {
	// NamespaceOf tells in which containerd namespace a dataset or snapshot is
	// mounted, or "" where that cannot be told. A containerd 1.7 asks without
	// saying for whom.
	NamespaceOf(source string) string

	// HeldAt returns the runtime whose held mount has a path, and whether there is
	// one. Clients bind that mount.
	HeldAt(path string) (dataset string, ok bool)

	// Begin is called before something is written, to see to it that there is some
	// room, where that is possible, and what it answers when that is over.
	Begin(ctx context.Context) (end func())

	// Fill notes that a layer is about to be unpacked into a runtime. What it returns
	// notes that all of it was: diffID is the digest of the uncompressed layer, blob
	// that of what it was read from.
	Fill(runtime string) (filled func(diffID, blob digest.Digest))

	// StandIn reports whether a runtime stands for a layer that is in the pool, so that
	// nothing is to be unpacked into it, and what is known of that layer: the digest of
	// it uncompressed, and that of the blob which it was unpacked from, or "".
	StandIn(runtime string) (diffID, blob digest.Digest, ok bool)

	// Recognize notes which layer a blob is that was read for such a runtime. It fails
	// with ErrInvalidArgument where that is not the layer that the runtime stands for.
	Recognize(ctx context.Context, runtime string, diffID, blob digest.Digest) error

	// Renew destroys a runtime that a layer did not fit into, makes room, and
	// answers a fresh one for the same layer, and in words what was done for room.
	// cause is what ZFS answered. It fails with ErrFailedPrecondition, and does nothing, where the runtime is
	// not one that a layer is unpacked into.
	Renew(ctx context.Context, runtime string, cause error) (fresh, made string, err error)

	// Discard removes a runtime of a layer that does not fit.
	Discard(ctx context.Context, runtime string) error
}

// New answers a service for a base.
func New(base layout.Base, pool Pool, contents Contents, runtimes Extractions) *Service {
	return &Service{base: base, pool: pool, contents: contents, runtimes: runtimes, second: retryLimiter{taken: make(chan struct{}, 1)}}
}

var (
	_ diff.Comparer = (*Service)(nil)
	_ diff.Applier  = (*Service)(nil)
)

// Compare writes what upper has changed since lower as a layer into containerd's
// store, in the caller's namespace, under a lease that keeps it there for an
// hour. Either may be mounted and in use. An empty lower is nothing at all.
//
//	NotImplemented      mounts that are not ours, a media type not known, a caller
//	                    whose namespace cannot be told, or a store that cannot be
//	                    reached
//	FailedPrecondition  something in upper that no layer can hold
//	Unavailable         containerd's store was lost on the way
func (s *Service) Compare(ctx context.Context, lower, upper []mount.Mount, opts ...diff.Opt) (ocispec.Descriptor, error) {
	var config diff.Config
	for _, opt := range opts {
		if err := opt(&config); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if config.SourceDateEpoch == nil {
		config.SourceDateEpoch = epoch.FromContext(ctx)
	}
	compress, err := compressor(&config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	sides, err := s.sides(lower, upper)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	ctx, err = s.withNamespace(ctx, sides.Upper)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	began := time.Now()
	closed := func(err error) error { return err }
	desc, err := s.store(ctx, config, compress, func(w io.Writer, at *current) error {
		pair, err := s.open(ctx, sides)
		if err != nil {
			return err
		}
		pair.current = at
		err = pair.layer(ctx, w, config.SourceDateEpoch)
		// ZFS destroys the snapshot while containerd takes in what is left.
		closed = pair.closeInBackground(ctx)
		return err
	})
	if err = s.fallBack(ctx, closed(err)); err != nil {
		return desc, fmt.Errorf("layer of %s since %s: %w", sides.Upper, sides.from(), err)
	}
	log.G(ctx).WithField("took", time.Since(began).Round(time.Millisecond)).WithField("digest", desc.Digest).
		WithField("bytes", desc.Size).WithField("dataset", sides.Upper).Info("a layer was made")
	return desc, nil
}

// Sides are the two things that are compared: each a snapshot, or a file system
// as it is now.
type Sides struct {
	Lower string // "" for nothing at all
	Upper string
}

func (s Sides) from() string {
	if s.Lower == "" {
		return "nothing"
	}
	return s.Lower
}

// sides answers what two lists of mounts mount.
func (s *Service) sides(lower, upper []mount.Mount) (sides Sides, err error) {
	if len(lower) > 0 {
		if sides.Lower, err = s.source(lower); err != nil {
			return Sides{}, err
		}
	}
	sides.Upper, err = s.source(upper)
	return sides, err
}

// source answers the dataset or snapshot of ours that is mounted.
func (s *Service) source(mounts []mount.Mount) (string, error) {
	if len(mounts) == 1 {
		if source, ok := s.sourceOf(mounts[0]); ok {
			return source, nil
		}
	}
	return "", fmt.Errorf("mounts %q are not of a snapshot under %s: %w", sources(mounts), s.base, errdefs.ErrNotImplemented)
}

// sourceOf returns what a mount of ours mounts: a dataset or a snapshot by name, or
// a runtime by a bind of its held mount.
func (s *Service) sourceOf(m mount.Mount) (string, bool) {
	switch m.Type {
	case "bind":
		return s.runtimes.HeldAt(m.Source)
	case "zfs":
		_, runtime := s.base.ParseRuntime(m.Source)
		_, template := s.base.ParseExtracted(m.Source)
		return m.Source, runtime || template
	}
	return "", false
}

func sources(mounts []mount.Mount) (list []string) {
	for _, m := range mounts {
		list = append(list, m.Type+" "+m.Source)
	}
	return list
}

// withNamespace answers a context that says to containerd whose request it is:
// the caller's, as it reached us, or else the runtime's.
func (s *Service) withNamespace(ctx context.Context, dataset string) (context.Context, error) {
	ns, ok := namespaces.Namespace(ctx)
	if !ok {
		ns = s.runtimes.NamespaceOf(dataset)
	}
	if ns == "" {
		return ctx, fmt.Errorf("containerd does not say in which namespace %s is asked for: %w", dataset, errdefs.ErrNotImplemented)
	}
	return namespaces.WithNamespace(ctx, ns), nil
}

// Layer writes what changed between two sides as a tar. With an epoch no time in
// it is later than that.
func (s *Service) Layer(ctx context.Context, sides Sides, w io.Writer, epoch *time.Time) error {
	pair, err := s.open(ctx, sides)
	if err != nil {
		return err
	}
	err = pair.layer(ctx, w, epoch)
	return pair.closeInBackground(ctx)(err)
}

// zfsError gives what ZFS answered the kind that containerd knows.
func zfsError(err error) error {
	if k := errkind.Of(err); k != nil {
		return fmt.Errorf("%w: %w", err, k)
	}
	return err
}
