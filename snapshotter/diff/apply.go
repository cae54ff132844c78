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

// Apply puts a layer from containerd's store into a runtime of ours. It answers
// what the layer is without compression. Where the pool is full it is done once
// more from the beginning, see again. Where it fails for another reason the runtime
// stays partly filled: containerd then removes it. A runtime that stands for a layer in
// the pool has the content already, see recognize.
//
//	NotImplemented     mounts that are not ours to write to, a media type that
//	                   nothing here can read, or a store that cannot be reached or
//	                   lacks the layer
//	ResourceExhausted  the pool or a quota is full, and stays so
//	InvalidArgument    the layer says that it is larger than any, or needs more
//	                   memory to read than any
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
	if diffID, blob, ok := s.runtimes.StandIn(runtime); ok {
		applied, err := s.recognize(ctx, desc, runtime, knownLayer{diffID, blob}, config)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("layer %s for %s, which stands for a layer in the pool: %w", desc.Digest, runtime, err)
		}
		return applied, nil
	}
	began := time.Now()
	defer s.runtimes.Begin(ctx)()
	applied, err := s.apply(ctx, desc, runtime, config)
	err = s.fallBack(ctx, err)
	if full(err) {
		applied, err = s.retry(ctx, desc, runtime, config, err)
	}
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("layer %s into %s: %w", desc.Digest, runtime, err)
	}
	log.G(ctx).WithField("took", time.Since(began).Round(time.Millisecond)).WithField("digest", desc.Digest).
		WithField("bytes", applied.Size).WithField("dataset", runtime).Debug("a layer was applied")
	return applied, nil
}

// writable answers the runtime that is mounted to be written to. Owners that are
// to be mapped are somebody else's work.
func (s *Service) writable(mounts []mount.Mount) (string, error) {
	source, err := s.source(mounts)
	if err != nil {
		return "", err
	}
	if _, ok := s.base.ParseRuntime(source); !ok || !onlyWritable(mounts[0].Options) {
		return "", fmt.Errorf("%s with options %q is not to be written to: %w", source, mounts[0].Options, errdefs.ErrNotImplemented)
	}
	return source, nil
}

// onlyWritable reports whether options say no more than that a mount is writable.
func onlyWritable(options []string) bool {
	return !slices.ContainsFunc(options, func(o string) bool { return o != "rbind" && o != "bind" && o != "rw" })
}

// apply is one attempt: it reads the layer from its beginning.
func (s *Service) apply(ctx context.Context, desc ocispec.Descriptor, runtime string, config diff.ApplyConfig) (_ ocispec.Descriptor, err error) {
	// What has failed does not wait for a store that answers no more.
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	in, err := s.contents.Store.ReaderAt(ctx, desc)
	if err != nil {
		return ocispec.Descriptor{}, unreachable{storeError(err)}
	}
	defer in.Close() // only read
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
	filled := s.runtimes.Fill(runtime)
	err = jailed(root, func() error { return stream.unpack(ctx) })
	if err == nil && config.SyncFs {
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

// full tells whether there was no space for a layer.
func full(err error) bool {
	for _, kind := range []error{syscall.ENOSPC, syscall.EDQUOT, zfs.ErrNoSpace, zfs.ErrQuota} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// spaceError gives what a full file system answered the kind that containerd
// knows. Which of the two was full it still says.
func spaceError(err error) error {
	if full(err) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	}
	return err
}

const (
	// fetchSize is how much is asked of containerd's store at once. What takes
	// compression away asks for 32 KiB, each of which would be a call of its own.
	fetchSize = 1 << 20
	// plainSize is in how large pieces the goroutine that takes compression away
	// hands over to the one that makes files.
	plainSize = 256 << 10
)

// stream is a layer that is read as what it is without compression.
type stream struct {
	steps  []diff.StreamProcessor // from the store on
	from   *aheadReader
	digest digest.Digester // of what was read from the last step; complete at its end
	size   int64
}

// uncompress answers a layer without what is around it: compression and, where
// containerd is configured to decrypt, encryption.
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
			// Of anything else that is wrong the next differ shall not try its luck.
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

// unpack makes the layer's files in the root directory, and reads on to the end.
func (s *stream) unpack(ctx context.Context) error {
	if _, err := archive.Apply(ctx, "/", s.from, archive.WithFilter(newLimits().pass)); err != nil {
		return err
	}
	return s.finish(ctx)
}

// outcome answers how a step went that has nothing more to say. A program may say it
// some time after its last word.
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

// Close ends the programs and goroutines that a layer was read by.
func (s *stream) Close() error {
	var errs []error
	if s.from != nil {
		errs = append(errs, s.from.Close())
	}
	for i := len(s.steps) - 1; i >= 0; i-- {
		// A program is ended, which is an error where it has ended by itself.
		if err := s.steps[i].Close(); !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// reporting tells how much was read: 0 first, and all at the end.
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
