package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
)

const builtImage = "docker.io/zfstpl/built:1"

// BuildKit builds on a containerd whose snapshots and layers are ours. What it
// built runs here and on overlayfs, and what it has built it does not build
// again. When it forgets its cache, nothing is left.
func TestBuildKitBuildsRunHereAndOnOverlayfs(t *testing.T) {
	onlyOnce(t, olderReleases, aClient)
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	c := startContainerd(t, d)
	_, ref := serveImage(t, writeTestImage(t))
	b := startBuildKit(t, c, strings.Split(ref, "/")[0])

	context := newContext(t, fmt.Sprintf(dockerfile, ref), map[string]string{"copied": "copied"})
	archive, progress := b.build(t, context)
	assert.Empty(t, cachedSteps(progress))
	assert.Equal(t, testLayers, strings.Count(d.Log.String(), "applied layer"), "the base was unpacked by our differ")
	assert.Equal(t, 2, strings.Count(d.Log.String(), "created layer"), "and the image's two new layers were made by it")

	for _, snapshotter := range []string{"zfstpl", "overlayfs"} {
		c.ctr(t, "images", "import", "--snapshotter", snapshotter, archive)
		out := c.ctr(t, "run", "--rm", "--snapshotter", snapshotter, builtImage, "built-"+snapshotter)
		for _, path := range []string{"/out/made\n", "/out/copied\n", "/data/kept\n", "/data/added\n"} {
			assert.Contains(t, out, path, snapshotter)
		}
		assert.NotContains(t, out, "/data/made", "that was in the other stage")
		assert.NotContains(t, out, "/data/removed", "%s: a whiteout of the base", snapshotter)
	}

	made := strings.Count(d.Log.String(), "created layer")
	_, progress = b.build(t, context)
	assert.ElementsMatch(t, []string{"RUN made", "COPY copied", "COPY both", "RUN changed"}, cachedSteps(progress), progress)
	assert.Equal(t, made, strings.Count(d.Log.String(), "created layer"), "nothing is made twice")

	if !testing.Short() { // which saves a build
		require.NoError(t, os.WriteFile(filepath.Join(context, "copied"), []byte("another"), 0o644))
		_, progress = b.build(t, context)
		assert.Equal(t, []string{"RUN made"}, cachedSteps(progress), "all behind what changed is built again:\n%s", progress)
	}

	dir := t.TempDir()
	buildAtOnce(t, ref, func(name, context string) error {
		_, err := b.try(buildArgs(context, "docker.io/zfstpl/"+name+":1", filepath.Join(dir, name))...)
		return err
	})
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", filepath.Join(dir, "cached-0"))
	assertCacheBuilt(t, c.ctr(t, "run", "--rm", "--snapshotter", "zfstpl", "docker.io/zfstpl/cached-0:1", "cached", "/app", "ls"))

	b.forget(t)
	c.ctr(t, "images", "delete", "--sync", builtImage, "docker.io/zfstpl/cached-0:1")
	c.collect(t, "buildkit")
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

// buildKit is a running buildkitd whose worker is a containerd with our
// snapshotter.
type buildKit struct {
	ctx     context.Context
	address string
}

func startBuildKit(t testing.TB, c *containerd, registry string) *buildKit {
	t.Helper()
	program, err := exec.LookPath("buildkitd")
	require.NoError(t, err, "BuildKit is wanted in PATH; the testbed has it")
	config := filepath.Join(c.dir, "buildkitd.toml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "[registry.%q]\n  http = true\n", registry), 0o600))
	b := &buildKit{ctx: context.Background(), address: "unix://" + filepath.Join(c.dir, "buildkit.sock")}
	cmd := exec.Command(program, "--config", config, "--root", filepath.Join(c.dir, "buildkit"), "--addr", b.address,
		"--oci-worker=false", "--containerd-worker=true", "--containerd-worker-addr", c.address,
		"--containerd-worker-snapshotter", "zfstpl", "--containerd-worker-net", "host")
	serve(t, cmd, &harness.ProgramLog{})
	b.ctl(t, "--wait", "debug", "workers")
	return b
}

// ctl runs buildctl and returns what it wrote.
func (b *buildKit) ctl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := b.try(args...)
	require.NoError(t, err)
	return out
}

// try is ctl for a command that may fail.
func (b *buildKit) try(args ...string) (string, error) {
	return runClient("buildctl", true, append([]string{"--addr", b.address, "--timeout", fmt.Sprint(harness.Patience.Seconds())}, args...)...)
}

// build builds a directory. It returns the image as an archive, and what was
// said meanwhile.
func (b *buildKit) build(t testing.TB, dir string) (archive, progress string) {
	t.Helper()
	archive = filepath.Join(t.TempDir(), "built.tar")
	return archive, b.ctl(t, buildArgs(dir, builtImage, archive)...)
}

// buildArgs are the arguments to build a directory into an archive of a named image.
func buildArgs(dir, name, archive string) []string {
	return []string{"build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + dir, "--local", "dockerfile=" + dir, "--output", "type=oci,name=" + name + ",dest=" + archive}
}

// cachedSteps are the steps of our Dockerfile that BuildKit says it need not do
// again.
func cachedSteps(progress string) (steps []string) {
	for name, instruction := range map[string]string{
		"RUN made":    `RUN ["/app", "write", "/data/made"`,
		"COPY copied": "COPY copied ",
		"COPY both":   "COPY --from=build ",
		"RUN changed": `RUN ["/app", "write", "/data/kept"`,
	} {
		for line := range strings.Lines(progress) {
			number, _, _ := strings.Cut(line, " ")
			if strings.Contains(line, "] "+instruction) && strings.Contains(progress, "\n"+number+" CACHED\n") {
				steps = append(steps, name)
				break
			}
		}
	}
	return steps
}

// forget empties the cache.
func (b *buildKit) forget(t testing.TB) {
	t.Helper()
	b.ctl(t, "prune", "--all")
}

// collect makes containerd collect garbage.
func (c *containerd) collect(t testing.TB, namespace string) {
	t.Helper()
	cl, err := client.New(c.address)
	require.NoError(t, err)
	defer cl.Close()
	ctx := namespaces.WithNamespace(context.Background(), namespace)
	lease, err := cl.LeasesService().Create(ctx, leases.WithRandomID())
	require.NoError(t, err)
	require.NoError(t, cl.LeasesService().Delete(ctx, lease, leases.SynchronousDelete))
}
