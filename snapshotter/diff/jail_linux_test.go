package diff

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// needsRoot skips a test that unpacks if it does not run as root.
func needsRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can change a thread's root directory")
	}
}

// A function in a jail finds nothing outside of it, and no other goroutine runs in it,
// however many jails there are.
func TestJailConfinesItsThread(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	outside := t.TempDir()
	var wg sync.WaitGroup
	for range 20 {
		dir := t.TempDir()
		require.NoError(t, os.Symlink(outside, filepath.Join(dir, "out")))
		wg.Go(func() {
			root, err := os.Open(dir)
			assert.NoError(t, err)
			defer root.Close()
			var layer bytes.Buffer
			w := tar.NewWriter(&layer)
			for _, name := range []string{"in", "out/in", "../../in", "/in2"} {
				assert.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}))
			}
			assert.NoError(t, w.Close())
			assert.NoError(t, jailed(root, func() error {
				_, err := os.Stat(outside)
				assert.ErrorIs(t, err, os.ErrNotExist)
				_, err = archive.Apply(t.Context(), "/", &layer)
				return err
			}))
			for _, name := range []string{"in", "in2", outside + "/in"} {
				_, err := os.Stat(filepath.Join(dir, name))
				assert.NoError(t, err, name)
			}
		})
	}
	wg.Wait()
	_, err := os.Stat(outside)
	require.NoError(t, err, "the root directory of the process has not changed")
	list, err := os.ReadDir(outside)
	require.NoError(t, err)
	assert.Empty(t, list)
}

// A panic in a jail is returned as an error.
func TestJailReturnsPanicsAsErrors(t *testing.T) {
	needsRoot(t)
	t.Parallel()
	root, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer root.Close()
	assert.ErrorContains(t, jailed(root, func() error { panic("why") }), "why")
}
