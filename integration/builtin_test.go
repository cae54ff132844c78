package integration

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/differ"
	zfstpl "github.com/zfstpl/zfstpl/plugin"
)

// storesOf is as much of containerd's metadata as the differ needs.
type storesOf struct{ content.Store }

func (s storesOf) ContentStore() content.Store { return s.Store }

// A containerd that imports package plugin has the snapshotter and the differ built
// in: it makes them, in the order that they ask for, and they work together.
func TestContainerdRunsWithThePluginBuiltIn(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	contents := differ.NewContents(t)
	ctx := namespaces.WithNamespace(context.Background(), "test")
	set := plugin.NewPluginSet()
	add := func(r plugin.Registration, config any) any {
		ic := plugin.NewContext(ctx, set, map[string]string{plugins.PropertyRootDir: t.TempDir()})
		ic.Config = config
		p := r.Init(ic)
		require.NoError(t, set.Add(p))
		instance, err := p.Instance()
		require.NoError(t, err)
		return instance
	}
	for kind, of := range map[plugin.Type]any{plugins.MetadataPlugin: storesOf{contents.Store}, plugins.LeasePlugin: contents.Leases} {
		add(plugin.Registration{Type: kind, ID: "manager", InitFn: func(*plugin.InitContext) (any, error) { return of, nil }}, nil)
	}
	made := make(map[plugin.Type]any)
	for _, r := range registry.Graph(func(r *plugin.Registration) bool { return r.ID != "zfstpl" }) {
		var config any
		if defaults, ok := r.Config.(*zfstpl.Config); ok {
			c := *defaults
			c.Dataset, c.Root, c.ZFSClient = base.String(), base.Root, base.Choice
			config = &c
		}
		made[r.Type] = add(r, config)
	}
	sn := made[plugins.SnapshotPlugin].(snapshots.Snapshotter)
	t.Cleanup(func() { require.NoError(t, made[plugins.SnapshotPlugin].(io.Closer).Close()) })

	mounts, err := sn.Prepare(ctx, "first", "")
	require.NoError(t, err)
	require.NoError(t, mount.WithTempMount(ctx, mounts, func(root string) error {
		return os.WriteFile(filepath.Join(root, "file"), []byte("what a layer holds"), 0o640)
	}))
	layer, err := made[plugins.DiffPlugin].(diff.Comparer).Compare(ctx, nil, mounts, diff.WithMediaType(ocispec.MediaTypeImageLayerZstd))
	require.NoError(t, err)
	other, err := sn.Prepare(ctx, "second", "")
	require.NoError(t, err)
	_, err = made[plugins.DiffPlugin].(diff.Applier).Apply(ctx, layer, other)
	require.NoError(t, err)
	require.NoError(t, mount.WithTempMount(ctx, other, func(root string) error {
		text, err := os.ReadFile(filepath.Join(root, "file"))
		assert.Equal(t, "what a layer holds", string(text))
		return err
	}))
	for _, key := range []string{"first", "second"} {
		require.NoError(t, sn.Remove(ctx, key))
	}
	require.NoError(t, sn.(snapshots.Cleaner).Cleanup(ctx))
}
