package integration

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
)

// A container that runs is made an image of, as nerdctl commit does, by what
// containerd is configured with; the image runs on overlayfs as well.
func TestRunningContainerCanBeCommittedToAnImage(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	c := startContainerd(t, d)
	archive := writeTestImage(t)
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", archive)
	assert.Equal(t, testLayers, strings.Count(d.Log.String(), "applied layer"), "the differ unpacks what is pulled")

	c.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", testImage, "runs", "/app", "wait")
	c.ctr(t, "tasks", "exec", "--exec-id", "writes", "runs", "/app", "write", "/data/kept", "changed")
	c.ctr(t, "tasks", "exec", "--exec-id", "writes2", "runs", "/app", "write", "/data/new", "new")
	layer := []byte(c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "diff", "--media-type", ocispec.MediaTypeImageLayer, "runs"))
	names := differ.TarNames(t, layer)
	assert.Subset(t, names, []string{"data/", "data/kept", "data/new"})
	assert.NotContains(t, names, "data/added")
	assert.NotContains(t, names, "app")
	desc, blob := c.commit(t, "runs")
	assert.Contains(t, c.ctr(t, "tasks", "ls"), "RUNNING", "the container went on")
	assert.Equal(t, 2, strings.Count(d.Log.String(), "created layer"))

	again := withLayer(t, archive, desc, blob)
	c.ctr(t, "images", "import", "--snapshotter", "overlayfs", again)
	out := c.ctr(t, "run", "--rm", "--snapshotter", "overlayfs", committedImage, "elsewhere", "/app", "ls")
	for _, path := range []string{"/data/kept\n", "/data/new\n", "/data/added\n", "/app\n"} {
		assert.Contains(t, out, path)
	}
	assert.NotContains(t, out, "/data/removed")

	c.ctr(t, "tasks", "kill", "--signal", "SIGKILL", "runs")
	c.ctr(t, "tasks", "delete", "--force", "runs")
	c.ctr(t, "containers", "delete", "runs")
	for _, image := range []string{testImage, committedImage} {
		c.ctr(t, "images", "delete", "--sync", image)
	}
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

const committedImage = "docker.io/zfstpl/committed:1"

// commit makes a layer of what a container changed, and returns it.
func (c *containerd) commit(t testing.TB, id string) (ocispec.Descriptor, []byte) {
	t.Helper()
	cl, err := client.New(c.address)
	require.NoError(t, err)
	defer cl.Close()
	ctx := namespaces.WithNamespace(context.Background(), "default")
	ctx, done, err := cl.WithLease(ctx)
	require.NoError(t, err)
	defer done(ctx)
	desc, err := rootfs.CreateDiff(ctx, id, cl.SnapshotService("zfstpl"), cl.DiffService(), diff.WithMediaType(ocispec.MediaTypeImageLayerGzip))
	require.NoError(t, err)
	info, err := cl.ContentStore().Info(ctx, desc.Digest)
	require.NoError(t, err)
	assert.NotEmpty(t, info.Labels[labels.LabelUncompressed])
	blob, err := content.ReadBlob(ctx, cl.ContentStore(), desc)
	require.NoError(t, err)
	return desc, blob
}

// withLayer is an archive's image with one layer more.
func withLayer(t testing.TB, archive string, desc ocispec.Descriptor, blob []byte) string {
	t.Helper()
	image, err := tarball.ImageFromPath(archive, nil)
	require.NoError(t, err)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(string(blob))), nil
	}, tarball.WithMediaType(types.OCILayer))
	require.NoError(t, err)
	digest, err := layer.Digest()
	require.NoError(t, err)
	require.Equal(t, desc.Digest.String(), digest.String())
	image, err = mutate.AppendLayers(image, layer)
	require.NoError(t, err)
	tag, err := name.NewTag(committedImage)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "committed.tar")
	require.NoError(t, tarball.WriteToFile(path, tag, image))
	return path
}
