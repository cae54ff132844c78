package diff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Apply unpacks a layer from containerd's store into a runtime and returns the
// descriptor of the uncompressed layer. If the pool or a quota is full, Apply makes a
// second attempt from the beginning; see retry. After any other failure the runtime
// keeps what was unpacked, and containerd removes it. A stand-in has the layer's
// content already; see recognize.
//
//	NotImplemented     the mounts are not a writable runtime of this base, the media
//	                   type is unknown, or the store cannot be reached or lacks the
//	                   layer
//	ResourceExhausted  the pool or a quota is full after the second attempt
//	InvalidArgument    the layer exceeds a limit of its size or of the memory that
//	                   reading it takes
func (s *Service) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	var config diff.ApplyConfig
	for _, opt := range opts {
		if err := opt(ctx, desc, &config); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	runtime, err := s.writable(mounts)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if ctx, err = s.withNamespace(ctx, runtime); err != nil {
		return ocispec.Descriptor{}, err
	}
	if diffID, blob, ok := s.extractions.StandIn(runtime); ok {
		applied, err := s.recognize(ctx, desc, runtime, knownLayer{diffID, blob}, config)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("layer %s for %s, a stand-in for a layer in the pool: %w", desc.Digest, runtime, err)
		}
		return applied, nil
	}
	began := time.Now()
	defer s.extractions.Begin(ctx)()
	applied, err := s.apply(ctx, desc, runtime, config)
	err = s.fallBack(ctx, err)
	if full(err) {
		applied, err = s.retry(ctx, desc, runtime, config, err)
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("layer %s into %s: %w", desc.Digest, runtime, err)
	}
	log.G(ctx).WithField("took", time.Since(began).Round(time.Millisecond)).WithField("digest", desc.Digest).
		WithField("bytes", applied.Size).WithField("dataset", runtime).Debug("applied layer")
	return applied, nil
}

// writable returns the runtime that the mounts mount writable. It refuses other
// options, such as those that map owners.
func (s *Service) writable(mounts []mount.Mount) (string, error) {
	source, err := s.source(mounts)
	if err != nil {
		return "", err
	}
	if _, ok := s.base.ParseRuntime(source); !ok || !onlyWritable(mounts[0].Options) {
		return "", fmt.Errorf("%s with options %q is not a writable runtime: %w", source, mounts[0].Options, errdefs.ErrNotImplemented)
	}
	return source, nil
}

// onlyWritable reports whether all options are those of a plain writable mount.
func onlyWritable(options []string) bool {
	return !slices.ContainsFunc(options, func(o string) bool { return o != "rbind" && o != "bind" && o != "rw" })
}

// apply makes one attempt: it reads the layer from its beginning.
func (s *Service) apply(ctx context.Context, desc ocispec.Descriptor, runtime string, config diff.ApplyConfig) (_ ocispec.Descriptor, err error) {
	// After a failure nothing waits for a store that has stalled.
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	in, err := s.contents.Store.ReaderAt(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, unreachable{storeError(err)}
	}
	defer in.Close() // opened for reading only
	fetched := readAhead(content.NewReader(in), fetchSize, 2)
	defer func() { giveUp(); fetched.Close() }()
	stream, err := uncompress(ctx, desc, fetched, config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	root, err := s.pool.AttachWritable(ctx, runtime)
	if err != nil {
		giveUp()
		return ocispec.Descriptor{}, errors.Join(zfsError(err), stream.Close())
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	filled := s.extractions.Fill(runtime)
	err = jailed(root, func() error { return stream.unpack(ctx) })
	if err == nil && config.SyncFs && !s.extractions.IsExtraction(runtime) {
		err = syncFS(root)
	}
	if err != nil {
		giveUp()
	}
	if err := errors.Join(spaceError(err), stream.Close()); err != nil {
		return ocispec.Descriptor{}, err
	}
	diffID := stream.digest.Digest()
	filled(diffID, desc.Digest)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Size: stream.size, Digest: diffID}, nil
}

// full reports whether an error means that there was no space for a layer.
func full(err error) bool {
	for _, kind := range []error{syscall.ENOSPC, syscall.EDQUOT, zfs.ErrNoSpace, zfs.ErrQuota} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// spaceError adds containerd's error kind to an error of a full file system. The text
// keeps whether the pool or a quota is full.
func spaceError(err error) error {
	if full(err) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	}
	return err
}

const (
	// fetchSize is how much is read from containerd's store at once. Decompressors
	// read 32 KiB at a time, each of which would be a call.
	fetchSize = 1 << 20
	// plainSize is the size of the blocks that the decompressing goroutine passes to
	// the unpacking one.
	plainSize = 256 << 10
)

// stream is a layer that is read uncompressed.
type stream struct {
	steps  []diff.StreamProcessor // in order, beginning at the store
	from   *aheadReader
	digest digest.Digester // of what was read from the last step
	size   int64
}

// uncompress returns a layer without its compression and, where containerd is
// configured to decrypt, its encryption.
func uncompress(ctx context.Context, desc ocispec.Descriptor, r io.Reader, config diff.ApplyConfig) (*stream, error) {
	s := &stream{digest: digest.Canonical.Digester()}
	if config.Progress != nil {
		r = &progressReader{r: r, report: config.Progress}
	}
	step := diff.NewProcessorChain(desc.MediaType, r)
	s.steps = append(s.steps, step)
	for step.MediaType() != ocispec.MediaTypeImageLayer {
		next, err := process(ctx, step, config)
		if errors.Is(err, diff.ErrNoProcessor) {
			// After any other error the next differ must not try.
			err = fmt.Errorf("%w: %w", err, errdefs.ErrNotImplemented)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("media type %q: %w", desc.MediaType, err), s.Close())
		}
		step = next
		s.steps = append(s.steps, step)
	}
	s.from = readAhead(io.TeeReader(step, io.MultiWriter(s.digest.Hash(), (*counter)(&s.size))), plainSize, 4)
	return s, nil
}

// unpack creates the layer's files in the root directory and reads the stream to its
// end.
func (s *stream) unpack(ctx context.Context) error {
	if _, err := archive.Apply(ctx, "/", s.from, archive.WithFilter(newLimits().pass)); err != nil {
		return err
	}
	return s.finish(ctx)
}

// stepError returns the error of a step whose output has ended. A program may exit
// some time after its last output.
func stepError(ctx context.Context, step diff.StreamProcessor) error {
	switch step := step.(type) {
	case interface {
		Wait(ctx context.Context) error
	}:
		return step.Wait(ctx)
	case interface{ Err() error }:
		return step.Err()
	}
	return nil
}

// Close ends the programs and goroutines that read the layer.
func (s *stream) Close() error {
	var errs []error
	if s.from != nil {
		errs = append(errs, s.from.Close())
	}
	for i := len(s.steps) - 1; i >= 0; i-- {
		// Close kills a program, which fails if the program has exited.
		if err := s.steps[i].Close(); !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// progressReader reports how many bytes were read: 0 first, and all of them at the
// end.
type progressReader struct {
	r      io.Reader
	report func(int64)
	n      int64
}

func (p *progressReader) Read(b []byte) (int, error) {
	p.report(p.n)
	n, err := p.r.Read(b)
	p.n += int64(n)
	if errors.Is(err, io.EOF) {
		p.report(p.n)
	}
	return n, err
}
