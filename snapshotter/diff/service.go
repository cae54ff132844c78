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

// Pool is what a Service needs from ZFS.
type Pool interface {
	Objects
	TakeTemporary(ctx context.Context, filesystem string) (*zfs.TemporarySnapshot, error)
	AttachRoot(ctx context.Context, snapshot string) (*os.File, error)
	AttachWritable(ctx context.Context, filesystem string) (*os.File, error)
}

// Contents is where layers are stored: containerd's content store and its leases.
type Contents struct {
	Store  content.Store
	Leases leases.Manager
	// Setting names the configuration setting of the store's address and its value,
	// for error messages. It may be empty.
	Setting string
}

// Service makes layers of snapshots and unpacks layers into runtimes, for containerd.
// It serves the snapshots of one base; for any other it returns ErrNotImplemented, and
// containerd asks its next differ. It is safe for use by any number of goroutines.
type Service struct {
	base        layout.Base
	pool        Pool
	contents    Contents
	extractions Extractions
	retries     retryLimiter // see retry
	unavailable atomic.Bool  // the store could not be used; see fallBack
}

// Extractions is the snapshotter, as the differ needs it. *snapshotter.Snapshotter
// implements it.
type Extractions interface {
	// NamespaceOf returns the containerd namespace in which a dataset or snapshot is
	// mounted, or "" if it is unknown. It is for requests of containerd 1.7, which do
	// not name their namespace.
	NamespaceOf(source string) string

	// HeldAt returns the runtime whose held mount is at a path, and whether there is
	// one. Clients bind that mount.
	HeldAt(path string) (dataset string, ok bool)

	// Begin is called before something is written, so that space is made under
	// pressure. The returned function is called afterwards.
	Begin(ctx context.Context) (end func())

	// Fill is called before a layer is unpacked into a runtime. The returned function
	// is called when the layer was unpacked completely: diffID is the digest of the
	// uncompressed layer, blob that of the blob it was read from.
	Fill(runtime string) (filled func(diffID, blob digest.Digest))

	// IsExtraction reports whether a runtime is that of an extraction: nothing in it is durable
	// before its commit, and everything is after that.
	IsExtraction(runtime string) bool

	// StandIn reports whether a runtime is a stand-in, into which nothing is to be
	// unpacked. It also returns what is known of the layer: the digest of the
	// uncompressed layer and that of the blob it was unpacked from, or "".
	StandIn(runtime string) (diffID, blob digest.Digest, ok bool)

	// Recognize records which layer a blob is that was read for a stand-in. It fails
	// with ErrInvalidArgument if that is not the stand-in's layer.
	Recognize(ctx context.Context, runtime string, diffID, blob digest.Digest) error

	// Renew destroys an extraction that a layer did not fit into and reclaims space.
	// It returns a new extraction for the same layer, and a description of what was
	// reclaimed. cause is the error of ZFS. If the runtime is not an extraction, Renew
	// does nothing and fails with ErrFailedPrecondition.
	Renew(ctx context.Context, runtime string, cause error) (fresh, made string, err error)

	// Discard removes an extraction of a layer that does not fit.
	Discard(ctx context.Context, runtime string) error
}

// New returns a Service for a base.
func New(base layout.Base, pool Pool, contents Contents, extractions Extractions) *Service {
	return &Service{base: base, pool: pool, contents: contents, extractions: extractions, retries: retryLimiter{slot: make(chan struct{}, 1)}}
}

var (
	_ diff.Comparer = (*Service)(nil)
	_ diff.Applier  = (*Service)(nil)
)

// Compare writes the changes of upper since lower as a layer into containerd's store,
// in the caller's namespace, under a lease that keeps it for an hour. Either side may
// be mounted and in use. An empty lower means that everything in upper is new.
//
//	NotImplemented      the mounts are not of this base, the media type or the
//	                    caller's namespace is unknown, or the store cannot be reached
//	FailedPrecondition  upper has something that a layer cannot hold
//	Unavailable         the connection to containerd's store was lost
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
		// ZFS destroys the snapshot while containerd receives the rest.
		closed = pair.closeInBackground(ctx)
		return err
	})
	if err = s.fallBack(ctx, closed(err)); err != nil {
		return desc, fmt.Errorf("layer of %s since %s: %w", sides.Upper, sides.from(), err)
	}
	log.G(ctx).WithField("took", time.Since(began).Round(time.Millisecond)).WithField("digest", desc.Digest).
		WithField("bytes", desc.Size).WithField("dataset", sides.Upper).Info("created layer")
	return desc, nil
}

// Sides are the two sides of a comparison: each a snapshot, or a file system in its
// present state.
type Sides struct {
	Lower string // "" to compare with nothing
	Upper string
}

func (s Sides) from() string {
	if s.Lower == "" {
		return "nothing"
	}
	return s.Lower
}

// sides returns the sides that two lists of mounts mount.
func (s *Service) sides(lower, upper []mount.Mount) (sides Sides, err error) {
	if len(lower) > 0 {
		if sides.Lower, err = s.source(lower); err != nil {
			return Sides{}, err
		}
	}
	sides.Upper, err = s.source(upper)
	return sides, err
}

// source returns the dataset or snapshot of this base that is mounted.
func (s *Service) source(mounts []mount.Mount) (string, error) {
	if len(mounts) == 1 {
		if source, ok := s.sourceOf(mounts[0]); ok {
			return source, nil
		}
	}
	return "", fmt.Errorf("mounts %q are not of a snapshot below %s: %w", sources(mounts), s.base, errdefs.ErrNotImplemented)
}

// sourceOf returns what a mount mounts: a dataset or a snapshot by name, or a runtime
// by a bind of its held mount.
func (s *Service) sourceOf(m mount.Mount) (string, bool) {
	switch m.Type {
	case "bind":
		return s.extractions.HeldAt(m.Source)
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

// withNamespace returns a context with the containerd namespace of the request: the
// caller's if it is known, else that of the runtime.
func (s *Service) withNamespace(ctx context.Context, dataset string) (context.Context, error) {
	ns, ok := namespaces.Namespace(ctx)
	if !ok {
		ns = s.extractions.NamespaceOf(dataset)
	}
	if ns == "" {
		return ctx, fmt.Errorf("the containerd namespace of %s is unknown: %w", dataset, errdefs.ErrNotImplemented)
	}
	return namespaces.WithNamespace(ctx, ns), nil
}

// Layer writes the changes between two sides as a tar. With an epoch, no time in it is
// later than that.
func (s *Service) Layer(ctx context.Context, sides Sides, w io.Writer, epoch *time.Time) error {
	pair, err := s.open(ctx, sides)
	if err != nil {
		return err
	}
	err = pair.layer(ctx, w, epoch)
	return pair.closeInBackground(ctx)(err)
}

// zfsError adds containerd's error kind to an error of ZFS.
func zfsError(err error) error {
	if k := errkind.Of(err); k != nil {
		return fmt.Errorf("%w: %w", err, k)
	}
	return err
}
