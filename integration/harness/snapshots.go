package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/require"
)

// ChainID returns the chain ID number n.
func ChainID(n int) string { return fmt.Sprintf("sha256:%064x", n) }

// Extraction returns the key under which containerd extracts a layer.
func Extraction(ns string, n int, chain string) string {
	return fmt.Sprintf("%s/%d/extract-%d-Ab_1 %s", ns, n, n, chain)
}

// WithRef returns the label that asks for a layer.
func WithRef(chain string) snapshots.Opt {
	return snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: chain})
}

// Mounted calls fn with the directory where a snapshot is mounted meanwhile.
func Mounted(t testing.TB, mounts []mount.Mount, fn func(root string)) {
	t.Helper()
	require.NoError(t, mount.WithTempMount(context.Background(), mounts, func(root string) error {
		fn(root)
		return nil
	}))
}

// PullLayer creates a layer as containerd does. It returns the name of its snapshot.
func PullLayer(t testing.TB, sn snapshots.Snapshotter, ns string, n int, parent, chain string) string {
	t.Helper()
	ctx := context.Background()
	key, name := Extraction(ns, n, chain), fmt.Sprintf("%s/%d/%s", ns, n+1, chain)
	mounts, err := sn.Prepare(ctx, key, parent, WithRef(chain))
	require.NoError(t, err)
	Mounted(t, mounts, func(root string) {
		require.NoError(t, os.WriteFile(filepath.Join(root, "layer-"+chain[len(chain)-4:]), []byte(chain), 0o644))
	})
	require.NoError(t, sn.Commit(ctx, name, key, WithRef(chain)))
	return name
}

// Everything returns all snapshots, by name.
func Everything(t testing.TB, sn snapshots.Snapshotter) map[string]snapshots.Info {
	t.Helper()
	found := make(map[string]snapshots.Info)
	require.NoError(t, sn.Walk(context.Background(), func(_ context.Context, i snapshots.Info) error {
		found[i.Name] = i
		return nil
	}))
	return found
}

// RemoveAll removes all snapshots but those to keep, children first, as containerd's garbage
// collection does. A snapshot to keep has a parent to keep.
func RemoveAll(t testing.TB, sn snapshots.Snapshotter, keep ...string) {
	t.Helper()
	for {
		parents := make(map[string]bool)
		var names []string
		for name, info := range Everything(t, sn) {
			parents[info.Parent] = true
			if !slices.Contains(keep, name) {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			return
		}
		for _, name := range names {
			if !parents[name] {
				require.NoError(t, sn.Remove(context.Background(), name))
			}
		}
	}
}
