package integration

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
)

// The differ's own tests of hostile and damaged archives and of odd names run on
// whatever holds the temporary directory. Here that is ZFS.
func TestHostileArchivesAreRefusedOnZFS(t *testing.T) {
	onlyOnce(t, newerReleases, onlyFiles)
	t.Parallel()
	d := differ.New(t, pool.NewBase(t))
	_, mounts := d.Prepare(t, "")
	harness.Mounted(t, mounts, func(root string) {
		cmd := exec.Command(harness.Binary(t, "diff.test"), "-test.v", "-test.short",
			"-test.run", "TestHostile|TestDamaged|TestJail|TestDeletedWhiteoutNames|TestWhiteoutNames|TestAllNames")
		cmd.Env = append(os.Environ(), "TMPDIR="+root)
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		passed := strings.Count(string(out), "--- PASS: ")
		t.Logf("%d tests and cases passed on ZFS", passed)
		assert.Greater(t, passed, 100)
		assert.NotContains(t, string(out), "--- SKIP: ")
		left, err := os.ReadDir(root)
		require.NoError(t, err)
		assert.Empty(t, left, "a test left something behind")
	})
}
