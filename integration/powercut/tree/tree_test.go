//go:build linux

package tree

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// grown is a tree of three layers.
func grown(t *testing.T, seed uint64) string {
	t.Helper()
	root := t.TempDir()
	for layer := range uint64(3) {
		require.NoError(t, Grow(root, rand.New(rand.NewPCG(seed, layer))))
	}
	return root
}

func hashOf(t *testing.T, root string) string {
	t.Helper()
	hash, err := Hash(root)
	require.NoError(t, err)
	return hash
}

func TestTheSameSeedGrowsTheSameTree(t *testing.T) {
	require.Equal(t, hashOf(t, grown(t, 1)), hashOf(t, grown(t, 1)))
	require.NotEqual(t, hashOf(t, grown(t, 1)), hashOf(t, grown(t, 2)))
}

func TestHashSeesEveryChangeButThatOfTheBusyFile(t *testing.T) {
	root := grown(t, 3)
	before := hashOf(t, root)
	require.NoError(t, os.WriteFile(filepath.Join(root, Busy), []byte("x"), 0o600))
	require.Equal(t, before, hashOf(t, root))

	mapped := filepath.Join(root, "mapped")
	for _, change := range []func() error{
		func() error { return flip(mapped, 4095) },
		func() error { return os.Chmod(mapped, 0o640) },
		func() error { return os.Link(mapped, filepath.Join(root, "other")) },
		func() error { return os.Mkdir(filepath.Join(root, "directory"), 0o755) },
		func() error { return os.Symlink("x", filepath.Join(root, "symlink")) },
		func() error { return os.Remove(mapped) },
	} {
		require.NoError(t, change())
		after := hashOf(t, root)
		require.NotEqual(t, before, after)
		before = after
	}
}

// flip changes one byte of a file.
func flip(path string, at int) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	content[at]++
	return os.WriteFile(path, content, 0)
}
