package integration

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	diffproxy "github.com/containerd/containerd/v2/core/diff/proxy"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/standin"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// importRig is a waitsRig whose daemon extracts layers.
type importRig struct {
	*waitsRig
	applier diff.Applier
	store   content.Store
}

func newImportRig(t *testing.T, flags ...string) *importRig {
	t.Helper()
	store, err := local.NewStore(t.TempDir())
	require.NoError(t, err)
	r := &importRig{waitsRig: newWaitsRig(t, flags...), store: store}
	r.daemon.EndStandIn()
	stop, err := standin.Serve(r.daemon.Containerd(), func(to grpc.ServiceRegistrar) {
		contentapi.RegisterContentServer(to, contentserver.New(store))
	})
	require.NoError(t, err)
	t.Cleanup(stop)
	r.applier = diffproxy.NewDiffApplier(diffapi.NewDiffClient(r.daemon.Dial(t))).(diff.Applier)
	return r
}

// layer returns a layer with one file. No other layer has its content.
func (r *importRig) layer() ocispec.Descriptor {
	r.t.Helper()
	n := r.number()
	var blob bytes.Buffer
	w := tar.NewWriter(&blob)
	text := fmt.Sprintf("content of layer %d", n)
	require.NoError(r.t, w.WriteHeader(&tar.Header{Name: fmt.Sprintf("file-%d", n), Mode: 0o644, Size: int64(len(text))}))
	_, err := w.Write([]byte(text))
	require.NoError(r.t, err)
	require.NoError(r.t, w.Close())
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(blob.Bytes()), Size: int64(blob.Len())}
	require.NoError(r.t, content.WriteBlob(context.Background(), r.store, layer.Digest.String(), &blob, layer))
	return layer
}

// extract prepares an extraction on a parent, has the daemon extract a layer into it, and returns
// the call that commits it. The call returns the name of the committed snapshot.
func (r *importRig) extract(parent string, layer ocispec.Descriptor) (commit func() (name string, err error), err error) {
	ctx, n, chain := context.Background(), r.number(), layer.Digest.String()
	if parent != "" {
		chain = layout.ChainID(layout.ClientName(parent), chain)
	}
	key, name := harness.Extraction("ns", n, chain), fmt.Sprintf("ns/%d/%s", n+1, chain)
	mounts, err := r.sn.Prepare(ctx, key, parent, harness.WithRef(chain))
	if err != nil {
		return nil, err
	}
	if _, err := r.applier.Apply(ctx, layer, mounts, diff.WithSyncFs(true)); err != nil {
		return nil, err
	}
	return func() (string, error) { return name, r.sn.Commit(ctx, name, key, harness.WithRef(chain)) }, nil
}

// The commit of a layer that the daemon has extracted waits for its own transaction only: one
// txg with OpenZFS 2.4, and three with 2.3, which cannot clone in a program. Nothing is
// flushed before, because the daemon has written everything and a snapshot has that.
func TestCommitOfAnExtractedLayerWaitsForOneTxg(t *testing.T) {
	r := newImportRig(t, "--ready-runtimes=0")
	want := wait{1, 0}
	if !r.clonesInPrograms {
		want = wait{3, 0}
	}
	for range 3 {
		commit, err := r.extract(r.image, r.layer())
		require.NoError(t, err)
		r.waitUntilIdle()
		got := r.countCall(func() error { _, err := commit(); return err })
		assert.Equal(t, want, got, "%s", r.details())
	}
}

// A sync_fs of containerd's differ service waits for nothing in an extraction, because its commit
// makes everything durable. In a container it synchronises the file system.
func TestSyncOfAnExtractionIsItsCommit(t *testing.T) {
	r := newImportRig(t, "--ready-runtimes=0")
	for _, c := range []struct {
		make func(n int) (string, error)
		want wait
	}{{r.extraction, wait{0, 0}}, {r.container, wait{1, 1}}} {
		key, err := c.make(r.number())
		require.NoError(t, err)
		mounts, err := r.sn.Mounts(context.Background(), key)
		require.NoError(t, err)
		layer := r.layer()
		r.waitUntilIdle()
		got := r.countCall(func() error {
			_, err := r.applier.Apply(context.Background(), layer, mounts, diff.WithSyncFs(true))
			return err
		})
		assert.Equal(t, c.want, got, "%s:\n%s", key, r.details())
	}
}

// The import of n layers waits for at most n + 1 txgs with OpenZFS 2.4. The commit of each layer
// makes the runtime for the extraction of the next one, whose record waits for nothing.
func TestImportWaitsForOneTxgPerLayer(t *testing.T) {
	const layers = 5
	r := newImportRig(t, "--ready-runtimes=16")
	if !r.clonesInPrograms {
		t.Skip("this release of OpenZFS cannot clone in a program")
	}
	var blobs []ocispec.Descriptor
	for range layers {
		blobs = append(blobs, r.layer())
	}
	r.waitUntilIdle()
	began := time.Now()
	got := r.countCall(func() error {
		parent := ""
		for _, layer := range blobs {
			commit, err := r.extract(parent, layer)
			if err != nil {
				return err
			}
			if parent, err = commit(); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("%d layers: %d txgs, %d ZIL commits, in %s", layers, got.txgs, got.zil, time.Since(began))
	assert.LessOrEqual(t, got.txgs, layers+1, "%s", r.details())
	assert.LessOrEqual(t, got.zil, layers+1, "%s", r.details())
}
