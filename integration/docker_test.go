package integration

import (
	"encoding/json"
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

// Docker keeps its images and containers in a containerd whose snapshots and layers
// are ours. What follows are its stories, on one daemon; when all of it is removed,
// nothing is left.
func TestDockerWorksOnZfstpl(t *testing.T) {
	onlyOnce(t, newerReleases, aClient)
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	c := startContainerd(t, d)
	_, ref := serveImage(t, writeTestImage(t))
	docker := startDocker(t, c)
	assert.Equal(t, "zfstpl\n", docker.run(t, "info", "--format", "{{.Driver}}"))
	docker.run(t, "pull", "--quiet", ref)
	assert.Equal(t, testLayers, strings.Count(d.Log.String(), "applied layer"), "by our differ")

	t.Run("a container is run, looked at and committed", func(t *testing.T) {
		docker.commits(t, ref)
		assert.Equal(t, 1, strings.Count(d.Log.String(), "created layer"), "by our differ")
	})
	t.Run("an image is built", func(t *testing.T) { docker.builds(t, ref) })
	t.Run("builds at one time share a cache", func(t *testing.T) {
		if *matrix {
			t.Skip("takes minutes: 'make test' has BuildKit's own daemon do the same builds with the other releases, 'make test-long' both")
		}
		docker.buildsAtOnce(t, ref)
	})
	t.Run("an image is saved, loaded and pushed", func(t *testing.T) { docker.movesImages(t, ref) })
	t.Run("files are copied out of a container and into it", func(t *testing.T) { docker.copies(t, ref) })
	t.Run("a container runs as the user of its image", func(t *testing.T) { docker.runsAsUser(t, ref) })

	docker.run(t, "system", "prune", "--all", "--force")
	c.collect(t, "moby")
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

func (k *docker) commits(t *testing.T, ref string) {
	k.container(t, "--name", "writes", ref, "write", "/data/own", strings.Repeat("own", 10_000))
	assert.Equal(t, "C /data\nA /data/own\n", k.run(t, "diff", "writes"))
	eventually(t, "what a container wrote is accounted", func() bool {
		var size uint64
		_, err := fmt.Sscan(k.run(t, "inspect", "--size", "--format", "{{.SizeRw}}", "writes"), &size)
		return !assert.NoError(t, err) || size >= 4096
	})
	k.run(t, "commit", "--change", `CMD ["ls"]`, "writes", "committed")
	files := k.container(t, "--rm", "committed")
	assert.Contains(t, files, "/data/own\n")
	assert.Contains(t, files, "/data/added\n")
	assert.NotContains(t, files, "/data/removed", "a whiteout")
	k.run(t, "rm", "writes")
	k.run(t, "rmi", "committed")
}

func (k *docker) builds(t *testing.T, ref string) {
	k.build(t, "built", fmt.Sprintf(dockerfile, ref), map[string]string{"copied": "copied"})
	files := k.container(t, "--rm", "built")
	for _, path := range []string{"/out/made\n", "/out/copied\n", "/data/kept\n", "/data/added\n"} {
		assert.Contains(t, files, path)
	}
	assert.NotContains(t, files, "/data/made", "that was in the other stage")
	k.run(t, "rmi", "built")
}

func (k *docker) buildsAtOnce(t *testing.T, ref string) {
	buildAtOnce(t, ref, func(name, dir string) error {
		_, err := k.try("build", "--quiet", "--network", "none", "--tag", name, dir)
		return err
	})
	for i := range cacheBuilds {
		name := fmt.Sprintf("cached-%d", i)
		if i == 0 {
			assertCacheBuilt(t, k.container(t, "--rm", name))
		}
		k.run(t, "rmi", name)
	}
}

// An image of layers that Docker pulled and of one that it made goes out and comes back,
// as an archive and by a registry.
func (k *docker) movesImages(t *testing.T, ref string) {
	registry, _, _ := strings.Cut(ref, "/")
	moved := registry + "/zfstpl/moved:1"
	k.build(t, moved, fmt.Sprintf("FROM %s\nCOPY copied /data/copied\n", ref), map[string]string{"copied": "copied"})
	archive := filepath.Join(t.TempDir(), "moved.tar")
	k.run(t, "save", "--output", archive, moved)
	k.run(t, "push", "--quiet", moved)
	k.run(t, "rmi", moved)
	for how, back := range map[string][]string{"loaded": {"load", "--quiet", "--input", archive}, "pulled": {"pull", "--quiet", moved}} {
		k.run(t, back...)
		assert.Contains(t, k.container(t, "--rm", moved, "ls"), "/data/copied\n", how)
		k.run(t, "rmi", moved)
	}
}

func (k *docker) copies(t *testing.T, ref string) {
	dir := t.TempDir()
	into, out := filepath.Join(dir, "into"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(into, []byte("copied"), 0o644))
	k.container(t, "--detach", "--name", "waits", ref, "wait")
	k.run(t, "cp", into, "waits:/data/running")
	k.run(t, "stop", "waits")
	k.run(t, "cp", into, "waits:/data/stopped")
	for _, name := range []string{"running", "stopped"} {
		k.run(t, "cp", "waits:/data/"+name, out)
		content, err := os.ReadFile(out)
		require.NoError(t, err)
		assert.Equal(t, "copied", string(content), name)
	}
	assert.ElementsMatch(t, []string{"C /data", "A /data/running", "A /data/stopped"}, strings.Split(strings.TrimSpace(k.run(t, "diff", "waits")), "\n"))
	for kind, want := range map[string]string{"Images": "1", "Containers": "1"} {
		assert.Contains(t, k.run(t, "system", "df", "--format", "{{.Type}} {{.TotalCount}}"), kind+" "+want+"\n")
	}
	assert.Contains(t, k.run(t, "system", "df", "--verbose"), "waits")
	k.run(t, "rm", "waits")
}

// A command in a container runs as the user that the image names, and so does what asks
// it how it is: for that Docker reads the files of users in the container's root.
func (k *docker) runsAsUser(t *testing.T, ref string) {
	k.build(t, "user", fmt.Sprintf(userDockerfile, ref), map[string]string{"passwd": passwd, "group": group})
	k.container(t, "--detach", "--name", "user", "user")
	for user, want := range map[string]string{"": "33:33 [33 44]", "web": "33:33 [33 44]", "33": "33:33 [33 44]", "web:extra": "33:44 [44]", "0": "0:0 [0]"} {
		args := []string{"exec", "user", "/app", "self"}
		if user != "" {
			args = []string{"exec", "--user", user, "user", "/app", "self"}
		}
		assert.Contains(t, k.run(t, args...), want, "user %q", user)
	}
	eventually(t, "it is healthy", func() bool {
		return k.run(t, "inspect", "--format", "{{.State.Health.Status}}", "user") == "healthy\n"
	})
	k.run(t, "rm", "--force", "user")
	k.run(t, "rmi", "user")
}

// docker is a running dockerd.
type docker struct{ address string }

// startDocker starts a dockerd on a containerd of ours. It makes no networks, for
// which it would need the machine's.
func startDocker(t testing.TB, c *containerd) *docker {
	t.Helper()
	program, err := exec.LookPath("dockerd")
	require.NoError(t, err, "Docker is wanted in PATH; the testbed has it")
	runc, err := exec.LookPath("docker-runc")
	require.NoError(t, err, "a runc that knows time namespaces")
	dir := filepath.Join(c.dir, "docker")
	require.NoError(t, os.Mkdir(dir, 0o700))
	config, err := json.Marshal(map[string]any{
		"containerd": c.address, "features": map[string]bool{"containerd-snapshotter": true}, "storage-driver": "zfstpl",
		"runtimes": map[string]any{"newer": map[string]any{"path": runc}}, "default-runtime": "newer",
		"seccomp-profile": "unconfined", // for which runc would need a library
		"bridge":          "none", "iptables": false, "ip6tables": false, "userland-proxy": false,
		"data-root": filepath.Join(dir, "root"), "exec-root": filepath.Join(dir, "exec"), "pidfile": filepath.Join(dir, "pid"),
	})
	require.NoError(t, err)
	file := filepath.Join(dir, "daemon.json")
	require.NoError(t, os.WriteFile(file, config, 0o600))
	k := &docker{address: "unix://" + filepath.Join(dir, "docker.sock")}
	serveReady(t, exec.Command(program, "--config-file", file, "--host", k.address), &harness.ProgramLog{}, dir)
	return k
}

// container runs a container without a network, and returns what it wrote.
func (k *docker) container(t testing.TB, args ...string) string {
	t.Helper()
	return k.run(t, append([]string{"run", "--network", "none"}, args...)...)
}

// build builds an image of a Dockerfile and files.
func (k *docker) build(t testing.TB, name, dockerfile string, files map[string]string) {
	t.Helper()
	k.run(t, "build", "--quiet", "--network", "none", "--tag", name, newContext(t, dockerfile, files))
}

// run runs docker and returns what it wrote to stdout.
func (k *docker) run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := k.try(args...)
	require.NoError(t, err)
	return out
}

// try is run for a command that may fail.
func (k *docker) try(args ...string) (string, error) {
	return runClient("docker", false, append([]string{"--host", k.address}, args...)...)
}
