package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
)

// Two stages: what the first one runs and copies, the second takes from it.
const dockerfile = `FROM %[1]s AS build
RUN ["/app", "write", "/data/made", "made"]
COPY copied /data/copied
FROM %[1]s
COPY --from=build /data/made /data/copied /out/
RUN ["/app", "write", "/data/kept", "changed"]
ENTRYPOINT ["/app"]
CMD ["ls"]
`

// An image whose containers run as a user that it names, and are asked how they are.
const userDockerfile = `FROM %[1]s
COPY passwd group /etc/
USER web
HEALTHCHECK --interval=1s CMD ["/app", "hello"]
CMD ["wait"]
`

// Users that containers run as.
const (
	passwd = "root:x:0:0::/:/app\nweb:x:33:33::/:/app\n"
	group  = "root:x:0:\nweb:x:33:\nextra:x:44:web\n"
)

// Two stages that are built at one time, with a cache that one writes into and the other
// has read-only, and has to write into as well: neither ends before all stages of all
// builds are there. That they see each other is seen through the read-only mount.
const cacheDockerfile = `FROM %[1]s AS writes
RUN --mount=type=cache,id=shared,target=/cache ["/app", "meet", "/cache", "writes-%[2]d", "%[3]d", "/cache"]
FROM %[1]s AS reads
RUN --mount=type=cache,id=shared,target=/cache,readonly --mount=type=cache,id=shared,target=/same ["/app", "meet", "/same", "reads-%[2]d", "%[3]d", "/cache"]
FROM %[1]s
COPY --link --from=writes /data/kept /out/writes
COPY --link --from=reads /data/added /out/reads
CMD ["ls"]
`

// cacheBuilds is how many builds of cacheDockerfile run at one time.
const cacheBuilds = 4

// newContext makes the directory of a build: its Dockerfile and other files.
func newContext(t testing.TB, dockerfile string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644))
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
	}
	return dir
}

// buildAtOnce has all builds of cacheDockerfile run at one time.
func buildAtOnce(t testing.TB, ref string, build func(name, dir string) error) {
	t.Helper()
	ended := make(chan error)
	for i := range cacheBuilds {
		dir := newContext(t, fmt.Sprintf(cacheDockerfile, ref, i, 2*cacheBuilds), nil)
		go func() { ended <- build(fmt.Sprintf("cached-%d", i), dir) }()
	}
	for range cacheBuilds {
		assert.NoError(t, <-ended)
	}
}

// assertCacheBuilt asserts what an image of cacheDockerfile has.
func assertCacheBuilt(t testing.TB, files string) {
	t.Helper()
	for _, path := range []string{"/out/writes\n", "/out/reads\n", "/data/kept\n"} {
		assert.Contains(t, files, path)
	}
	assert.NotContains(t, files, "/cache/", "what is in a cache is in no image")
}

// runClient runs a client's command, which may take some steps, and returns what it
// wrote to stdout, and to stderr if that is wanted.
func runClient(program string, both bool, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 6*harness.Patience)
	defer cancel()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if both {
		cmd.Stderr = &stdout
	}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s%s", program, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String(), nil
}
