package integration

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	crregistry "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/registry"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

// A layer that the differ did not have to unpack.
const notUnpacked = "layer is in the pool; not unpacking it"

// requireComplete wants an image to be one that can be handed on: containerd has all
// of its blobs.
func (c *containerd) requireComplete(t testing.TB, namespace, ref string) {
	t.Helper()
	check := c.ctr(t, "--namespace", namespace, "images", "check", "--snapshotter", "zfstpl", "name=="+ref)
	assert.Contains(t, check, " complete ", "%s", check)
	c.ctr(t, "--namespace", namespace, "images", "export", filepath.Join(t.TempDir(), "exported.tar"), ref)

	// To a registry that has nothing: each blob is uploaded.
	empty := httptest.NewServer(crregistry.New(crregistry.Logger(log.New(io.Discard, "", 0))))
	defer empty.Close()
	copied := strings.TrimPrefix(empty.URL, "http://") + "/zfstpl/copy:1"
	c.ctr(t, "--namespace", namespace, "images", "tag", ref, copied)
	c.ctr(t, "--namespace", namespace, "images", "push", "--plain-http", copied)
	c.ctr(t, "--namespace", namespace, "images", "delete", copied)

	out := c.ctr(t, "--namespace", namespace, "run", "--rm", "--snapshotter", "overlayfs", ref, "elsewhere", "/app", "ls")
	assert.Contains(t, out, "/data/added\n", "another snapshotter unpacks it")
}

// requireNoRuntime wants nothing to be unpacked, or begun, anywhere.
func requireNoRuntime(t testing.TB, base *testpool.Base) {
	t.Helper()
	for _, name := range base.Names(t) {
		assert.NotContains(t, name, "/runtime/")
	}
}

// An image is pulled, used, removed and pulled again: its layers are in the pool still.
// All are fetched, none is unpacked, no template is made, and the image is complete: in
// the same namespace and in another one, which never had the blobs.
func TestRepullFetchesAndUnpacksNothing(t *testing.T) {
	onlyOnce(t, olderReleases, aCase)
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--cache-keep", "forever")
	c := startContainerd(t, d)
	registry, ref := serveImage(t, writeTestImage(t))

	c.pullByClient(t, "default", ref)
	first := c.lists(t, "default", ref)
	c.requireComplete(t, "default", ref)
	c.forget(t, d, "default", ref)
	eventually(t, "containerd knows nothing of it any more", func() bool { return len(d.RecordNames(t)) == 0 })
	before := identities(t, base)
	assert.Len(t, before, 1+testLayers)
	assert.Equal(t, testLayers, strings.Count(d.Log.String(), "applied layer"))
	registry.Fetched()

	type pull struct {
		namespace string
		by        func(t testing.TB, namespace, ref string)
	}
	pulls := []pull{{"default", c.pullByClient}, {"zoo", c.pullByClient}}
	if !containerd17(t) {
		pulls = append(pulls, pull{"default", c.pull}, pull{"zoo", c.pull})
	}
	for i, p := range pulls {
		p.by(t, p.namespace, ref)
		assert.Equal(t, testLayers, registry.Fetched().Layers, "each is fetched")
		assert.Equal(t, testLayers, strings.Count(d.Log.String(), "applied layer"), "none is unpacked")
		assert.Equal(t, (i+1)*testLayers, strings.Count(d.Log.String(), notUnpacked))
		assert.Equal(t, before, identities(t, base), "the very same templates")
		d.Clean(t)
		requireNoRuntime(t, base)
		assert.Equal(t, first, c.lists(t, p.namespace, ref))
		c.requireComplete(t, p.namespace, ref)
		c.forget(t, d, p.namespace, ref)
		registry.Fetched()
		if i == 0 {
			d.Stop(t) // what the templates say of themselves is not forgotten
			d.Start(t)
			// The new log lacks what the rounds before have counted.
			_, err := d.Log.Output(t).WriteString(strings.Repeat("applied layer; "+notUnpacked+"\n", testLayers))
			require.NoError(t, err)
		}
	}
	assert.NotContains(t, d.Log.String(), "added record of layer in the pool")
}

// In the namespace of Kubernetes nothing is fetched, unless the configuration says so.
func TestRepullInKubernetesFetchesNothing(t *testing.T) {
	for mode, fetched := range map[string]int{"auto": 0, "fetch": testLayers} {
		t.Run(mode, func(t *testing.T) {
			base := pool.NewBase(t)
			d := harness.StartDaemon(t, base, "--cache-keep", "forever", "--reuse-layers-in", "k8s.io="+mode)
			c := startContainerd(t, d)
			registry, ref := serveImage(t, writeTestImage(t))
			for _, want := range []int{testLayers, fetched} {
				c.pullByClient(t, "k8s.io", ref)
				assert.Equal(t, want, registry.Fetched().Layers)
				c.lists(t, "k8s.io", ref)
				c.forget(t, d, "k8s.io", ref)
			}
			assert.Equal(t, testLayers, strings.Count(d.Log.String(), "applied layer"))
		})
	}
}

// Two namespaces pull one image at the same time, while a third one removes it.
func TestConcurrentPullsReuseLayers(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--cache-keep", "forever")
	c := startContainerd(t, d)
	_, ref := serveImage(t, writeTestImage(t))
	c.pullByClient(t, "default", ref)
	before := identities(t, base)
	var each sync.WaitGroup
	for _, namespace := range []string{"one", "two"} {
		each.Go(func() { assert.NoError(t, c.tryPull(context.Background(), namespace, ref)) })
	}
	c.forget(t, d, "default", ref)
	each.Wait()
	assert.Equal(t, before, identities(t, base))
	for _, namespace := range []string{"one", "two"} {
		c.requireComplete(t, namespace, ref)
		assert.Contains(t, c.lists(t, namespace, ref), "/data/added\n")
		c.forget(t, d, namespace, ref)
	}
	requireNoRuntime(t, base)
}

// stalling serves an image, but no layer before it is released.
type stalling struct {
	*registry.Registry
	layers map[string]bool
	asked  chan struct{} // closed when a layer is asked for
	once   sync.Once
	serve  chan struct{} // closed when layers are to be served
}

func (s *stalling) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if s.layers[path.Base(req.URL.Path)] {
		s.once.Do(func() { close(s.asked) })
		select {
		case <-s.serve:
		case <-req.Context().Done():
			return
		}
	}
	s.Registry.ServeHTTP(w, req)
}

// serveStalling serves the image of an archive so, until t ends.
func serveStalling(t testing.TB, archive string) (*stalling, string) {
	t.Helper()
	image, err := tarball.ImageFromPath(archive, nil)
	require.NoError(t, err)
	served, err := registry.OfImage(image)
	require.NoError(t, err)
	s := &stalling{Registry: served, layers: make(map[string]bool), asked: make(chan struct{}), serve: make(chan struct{})}
	layers, err := image.Layers()
	require.NoError(t, err)
	for _, l := range layers {
		digest, err := l.Digest()
		require.NoError(t, err)
		s.layers[digest.String()] = true
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, strings.TrimPrefix(server.URL, "http://") + "/zfstpl/slow:1"
}

// A pull that is cancelled during the download leaves the layer in the pool as it was,
// and nothing else. The next one reuses it.
func TestCancelledPullKeepsTheLayer(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--cache-keep", "forever")
	c := startContainerd(t, d)
	archive := writeTestImage(t)
	_, ref := serveImage(t, archive)
	c.pullByClient(t, "default", ref)
	c.forget(t, d, "default", ref)
	before := identities(t, base)

	slow, elsewhere := serveStalling(t, archive)
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() { failed <- c.tryPull(ctx, "default", elsewhere) }()
	<-slow.asked
	runtimes := slices.DeleteFunc(base.Names(t), func(name string) bool { return !strings.HasPrefix(name, "/runtime/") })
	assert.Len(t, runtimes, 1, "it stands for the lowest layer, whose blob is asked for")
	cancel()
	require.Error(t, <-failed)
	c.collect(t, "default")
	d.Clean(t)
	requireNoRuntime(t, base)
	assert.Equal(t, before, identities(t, base))

	close(slow.serve)
	c.pullByClient(t, "default", elsewhere)
	assert.Equal(t, testLayers, strings.Count(d.Log.String(), "applied layer"), "none is unpacked again")
	assert.Equal(t, before, identities(t, base))
	c.requireComplete(t, "default", elsewhere)
	c.forget(t, d, "default", elsewhere)
}

// The daemon is killed between Apply and Commit of a layer that is reused, and what
// else used the layer goes: it is committed all the same, by a daemon that unpacked
// nothing. Compare, Usage and Mounts know it as what it is.
func TestStandInIsCommittedByANewDaemon(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base) // nothing is kept that nothing uses
	c := startContainerd(t, d)
	archive := writeTestImage(t)
	chain := bottom(t, archive)
	_, ref := serveImage(t, archive)
	c.pullByClient(t, "default", ref)
	template := base.Storage() + "/" + chain
	before := identities(t, base)[template]

	ctx := namespaces.WithNamespace(context.Background(), "zoo")
	zoo := c.snapshotter(t, "zoo")
	labels := snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: chain, "containerd.io/gc.root": "stays"})
	key := "extract-1-x " + chain
	mounts, err := zoo.Prepare(ctx, key, "", labels)
	require.NoError(t, err)
	c.forget(t, d, "default", ref)
	d.Kill(t)
	d.Start(t)
	d.Clean(t)
	assert.Equal(t, before, identities(t, base)[template], "it keeps its layer")
	assert.Len(t, identities(t, base), 2, "and no more")

	again, err := zoo.Mounts(ctx, key)
	require.NoError(t, err)
	assert.Equal(t, mounts, again)
	harness.Mounted(t, again, func(root string) { assert.FileExists(t, filepath.Join(root, "app")) })
	usage, err := zoo.Usage(ctx, key)
	require.NoError(t, err)
	assert.Zero(t, usage.Inodes, "it holds nothing that its layer does not hold")
	assert.Less(t, usage.Size, int64(64<<10), "but what ZFS writes to mount it")
	names := differ.TarNames(t, []byte(c.ctr(t, "--namespace", "zoo", "snapshots", "--snapshotter", "zfstpl", "diff",
		"--media-type", ocispec.MediaTypeImageLayer, key)))
	assert.Contains(t, names, "app", "the layer is what it has beyond its parent")

	err = zoo.Commit(ctx, "another", key)
	require.True(t, errdefs.IsFailedPrecondition(err), "%v", err)
	require.NoError(t, zoo.Commit(ctx, chain, key, labels))
	assert.Equal(t, before, identities(t, base)[template])
	info, err := zoo.Stat(ctx, chain)
	require.NoError(t, err)
	assert.Empty(t, info.Parent)
	require.NoError(t, zoo.Remove(ctx, chain))
	c.collect(t, "zoo")
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

// An image is removed while a container of it stays, and pulled again: containerd has
// the snapshots still, and does not ask for the layers. What the README names fetches
// them.
func TestDocumentedCommandsFetchMissingBlobs(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	c := startContainerd(t, d)
	registry, ref := serveImage(t, writeTestImage(t))
	c.pullByClient(t, "default", ref)
	c.ctr(t, "containers", "create", "--snapshotter", "zfstpl", ref, "stays", "/app", "wait")
	c.ctr(t, "images", "delete", "--sync", ref)
	registry.Fetched()

	c.pullByClient(t, "default", ref)
	assert.Zero(t, registry.Fetched().Layers)
	assert.Contains(t, c.ctr(t, "images", "check", "--snapshotter", "zfstpl", "name=="+ref), "incomplete")
	c.ctr(t, "content", "fetch", "--plain-http", ref)
	assert.Equal(t, testLayers, registry.Fetched().Layers)
	c.requireComplete(t, "default", ref)
	c.ctr(t, "containers", "delete", "stays")
	c.forget(t, d, "default", ref)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}
