package integration

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
)

// Two namespaces pull one image: the second one finds every layer, and each may
// remove it while the other goes on.
func TestNamespacesOfContainerdShareTemplates(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	c := startContainerd(t, d)
	_, ref := serveImage(t, writeTestImage(t))
	c.pull(t, "default", ref)
	before := identities(t, base)
	c.pull(t, "zoo", ref)
	assert.Equal(t, before, identities(t, base))
	c.forget(t, d, "default", ref)
	assert.Equal(t, before, identities(t, base))
	assert.Contains(t, c.lists(t, "zoo", ref), "/data/added\n")
	c.forget(t, d, "zoo", ref)
	assert.Len(t, identities(t, base), 1)
}

// bottom is the chain ID of an image's first layer.
func bottom(t testing.TB, archive string) string {
	t.Helper()
	image, err := tarball.ImageFromPath(archive, nil)
	require.NoError(t, err)
	config, err := image.ConfigFile()
	require.NoError(t, err)
	return identity.ChainID([]digest.Digest{digest.Digest(config.RootFS.DiffIDs[0].String())}).String()
}

// Where namespaces share nothing, what one of them says a layer is does not reach
// another: neither when that one unpacks it, nor when it asks for its own again.
func TestNamespacesOfContainerdShareNothing(t *testing.T) {
	for _, mode := range []string{"skip", "fetch"} {
		t.Run(mode, func(t *testing.T) {
			onlyOnce(t, mode == "skip", aCase)
			base := pool.NewBase(t)
			d := harness.StartDaemon(t, base, "--share-layers-across-namespaces=false", "--reuse-layers", mode, "--cache-keep", "forever")
			shareNothing(t, d, startContainerd(t, d), mode)
		})
	}
}

// Where containerd isolates its namespaces they share nothing here either, whatever the
// setting says.
func TestIsolatedNamespacesOfContainerdShareNothing(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--share-layers-across-namespaces=true", "--reuse-layers", "skip", "--cache-keep", "forever")
	shareNothing(t, d, startContainerdWith(t, d, func(int, string) string {
		return withoutCRI + "[plugins.\"io.containerd.metadata.v1.bolt\"]\n  content_sharing_policy = \"isolated\"\n"
	}), "skip")
	assert.Equal(t, 1, strings.Count(d.Log.String(), "content_sharing_policy is isolated"))
}

func shareNothing(t *testing.T, d *harness.Daemon, c *containerd, mode string) {
	t.Helper()
	base := d.Base
	archive := writeTestImage(t)
	chain := bottom(t, archive)
	registry, ref := serveImage(t, archive)

	// A namespace that sorts before the other's commits something else under the
	// layer's name.
	ctx := namespaces.WithNamespace(context.Background(), "attacker")
	attacker := c.snapshotter(t, "attacker")
	_, err := attacker.Prepare(ctx, "extract-1-x "+chain, "", harness.WithRef(chain))
	require.NoError(t, err)
	require.NoError(t, attacker.Commit(ctx, chain, "extract-1-x "+chain, snapshots.WithLabels(map[string]string{
		snapshots.LabelSnapshotRef: chain,
		"containerd.io/gc.root":    "stays", // or it would be collected with the image
	})))

	again, recorded, reused := 0, testLayers, 0
	switch {
	case mode == "fetch":
		again, recorded, reused = testLayers, 0, testLayers
	case containerd17(t):
		// It does not name the caller's namespace, so the bottom layer could be of any. With
		// the first layer it unpacks it fetches those above, too.
		again, recorded = testLayers, testLayers-1
	}
	for _, fetched := range []int{testLayers, again} {
		c.pullByClient(t, "default", ref)
		assert.Equal(t, fetched, registry.Fetched().Layers)
		assert.Contains(t, c.lists(t, "default", ref), "/app\n", "what the layer has")
		assert.Len(t, identities(t, base), 1+testLayers+1)
		c.forget(t, d, "default", ref)
	}
	assert.Equal(t, recorded, strings.Count(d.Log.String(), "added record of layer in the pool"))
	assert.Equal(t, reused, strings.Count(d.Log.String(), notUnpacked))
	for name := range identities(t, base) {
		if name != base.Empty().Dataset() {
			assert.Regexp(t, "/ns-[0-9a-f]{16}-sha256:[0-9a-f]{64}$", name)
		}
	}
	require.NoError(t, attacker.Remove(ctx, chain))
}
