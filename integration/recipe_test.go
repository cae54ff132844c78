package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/docs"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/plugin"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// recipeTrap shows the logs of a recipe that failed, and leaves nothing of it.
const recipeTrap = `
end() {
    code=$?
    [ $code != 0 ] || return 0
    cd / && tail -n 20 /tmp/recipe/*.log
    kill $containerd $daemon
    wait
    zpool destroy recipe
    rm -rf /tmp/recipe
    exit $code
}
trap end EXIT
`

// The recipe of docs/zfs.md does what the document says, typed as written.
func TestRecipeOfTheDocumentWorks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; the tests of space do the same")
	}
	t.Parallel()
	var script strings.Builder
	script.WriteString("set -e\n" + recipeTrap)
	_, recipe, found := strings.Cut(docs.ZFS, "\n## A recipe\n")
	require.True(t, found, "docs/zfs.md has a recipe")
	for _, block := range shellBlock.FindAllStringSubmatch(recipe, -1) {
		script.WriteString(block[1])
	}
	text := script.String()
	version, err := exec.Command("containerd", "--version").Output()
	require.NoError(t, err, "containerd is wanted in PATH")
	if plugin.ContainerdIsOld(string(version)) {
		require.Contains(t, text, "version=3")
		text = strings.Replace(text, "version=3", "version=2", 1)
	}
	cmd := exec.Command("bash", "-c", text)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(harness.Binary(t, "zfstpl"))+":"+os.Getenv("PATH"))
	log := &harness.ProgramLog{}
	cmd.Stdout, cmd.Stderr = log.Output(t), log.Output(t)
	began := time.Now()
	err = cmd.Run()
	t.Logf("it took %s\n%s", time.Since(began), log)
	require.NoError(t, err)
	out := log.String()
	assert.Regexp(t, `cached 12\.\d+MiB`, out)
	assert.Regexp(t, `images 12\.\d+MiB, .* cached 0B`, out)
	assert.Equal(t, 1, strings.Count(out, "one cached template of 12"), "the log's line")
	assert.Contains(t, out, "and the quota of recipe/zfstpl is ")
}
