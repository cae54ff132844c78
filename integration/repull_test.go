package integration

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// testLayers is how many layers the test's image has.
const testLayers = 3

// identities are what makes each template that very one, by name: a template
// that was made anew has others.
func identities(t testing.TB, base *testpool.Base) map[string]zfs.Dataset {
	t.Helper()
	found := make(map[string]zfs.Dataset)
	for _, d := range base.List(t) {
		if strings.HasPrefix(d.Name, base.Storage()+"/") {
			found[d.Name] = zfs.Dataset{GUID: d.GUID, CreateTXG: d.CreateTXG, Refer: d.Refer}
		}
	}
	return found
}

// forget removes the image and everything containerd knows of it.
func (c *containerd) forget(t testing.TB, d *harness.Daemon, namespace, ref string) {
	t.Helper()
	c.ctr(t, "--namespace", namespace, "images", "delete", "--sync", ref)
	d.Clean(t)
}

// pullByClient pulls as nerdctl does, and the CRI plugin of 1.7.
func (c *containerd) pullByClient(t testing.TB, namespace, ref string) {
	t.Helper()
	require.NoError(t, c.tryPull(context.Background(), namespace, ref))
}

func (c *containerd) tryPull(ctx context.Context, namespace, ref string) error {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, namespace), harness.Patience)
	defer cancel()
	cl, err := client.New(c.address)
	if err != nil {
		return err
	}
	defer cl.Close()
	_, err = cl.Pull(ctx, ref, client.WithPullUnpack, client.WithPullSnapshotter("zfstpl"))
	return err
}

// pull pulls by ctr, which has containerd 2.x do it and does it itself on 1.7.
func (c *containerd) pull(t testing.TB, namespace, ref string) {
	t.Helper()
	c.ctr(t, "--namespace", namespace, "images", "pull", "--plain-http", "--snapshotter", "zfstpl", ref)
}

// lists runs a container and returns the files it sees.
func (c *containerd) lists(t testing.TB, namespace, ref string) string {
	t.Helper()
	return c.ctr(t, "--namespace", namespace, "run", "--rm", "--snapshotter", "zfstpl", ref, "lists", "/app", "ls")
}

// An image is pulled, used, removed and pulled again where nothing is pushed: its
// layers are in the pool still. None is fetched, none is unpacked, and no dataset is
// made.
func TestRepullUnpacksNothing(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--reuse-layers", "skip", "--cache-keep", "forever")
	c := startContainerd(t, d)
	registry, ref := serveImage(t, writeTestImage(t))

	c.pullByClient(t, "default", ref)
	assert.Equal(t, testLayers, registry.Fetched().Layers)
	first := c.lists(t, "default", ref)
	c.forget(t, d, "default", ref)
	assert.Empty(t, d.RecordNames(t), "containerd knows nothing of it any more")
	before := identities(t, base)
	assert.Len(t, before, 1+testLayers)
	require.NotContains(t, d.Log.String(), "added record of layer in the pool")

	pulls := []func(testing.TB, string, string){c.pullByClient}
	if !containerd17(t) {
		pulls = append(pulls, c.pull)
	}
	for i, pull := range pulls {
		pull(t, "default", ref)
		assert.Zero(t, registry.Fetched().Layers, "nothing is fetched")
		assert.Equal(t, (i+1)*testLayers, strings.Count(d.Log.String(), "added record of layer in the pool"))
		assert.Equal(t, before, identities(t, base), "the very same templates")
		for _, name := range base.Names(t) {
			assert.NotContains(t, name, "/runtime/", "nothing was unpacked anywhere")
		}
		assert.Equal(t, first, c.lists(t, "default", ref))
		c.forget(t, d, "default", ref)
	}
}

// An import has the layers with it, and on containerd 1.7 unpacks them without a
// question; what is unpacked then joins the templates that are there.
func TestReimportMakesNoTemplates(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--cache-keep", "forever")
	c := startContainerd(t, d)
	archive := writeTestImage(t)
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", archive)
	first := c.lists(t, "default", testImage)
	c.forget(t, d, "default", testImage)
	assert.Empty(t, d.RecordNames(t))
	before := identities(t, base)
	assert.Len(t, before, 1+testLayers)

	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", archive)
	assert.Equal(t, before, identities(t, base), "the very same templates")
	assert.Equal(t, first, c.lists(t, "default", testImage))
	t.Logf("%d of %d layers were reused, the others unpacked and joined", strings.Count(d.Log.String(), "added record of layer in the pool"), testLayers)
	c.forget(t, d, "default", testImage)
}
