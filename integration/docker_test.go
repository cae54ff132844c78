package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Docker keeps its images and containers in a containerd whose snapshots and layers
// are ours: pulled, run, looked at, committed, built, removed, and nothing is left.
func TestDocker(t *testing.T) {
	base := pool.NewBase(t)
	d := startDaemon(t, base)
	c := startContainerd(t, d)
	_, ref := serveImage(t, writeTestImage(t))
	docker := startDocker(t, c)
	assert.Equal(t, "zfstpl\n", docker.run(t, "info", "--format", "{{.Driver}}"))

	docker.run(t, "pull", "--quiet", ref)
	assert.Equal(t, testLayers, strings.Count(d.log.String(), "a layer was applied"), "by our differ")
	docker.run(t, "run", "--name", "writes", "--network", "none", ref, "write", "/data/own", strings.Repeat("own", 10_000))
	assert.Equal(t, "C /data\nA /data/own\n", docker.run(t, "diff", "writes"))
	eventually(t, "what a container wrote is accounted", func() bool {
		var size uint64
		_, err := fmt.Sscan(docker.run(t, "inspect", "--size", "--format", "{{.SizeRw}}", "writes"), &size)
		return !assert.NoError(t, err) || size >= 4096
	})

	docker.run(t, "commit", "--change", `CMD ["ls"]`, "writes", "committed")
	assert.Equal(t, 1, strings.Count(d.log.String(), "a layer was made"), "by our differ")
	files := docker.run(t, "run", "--rm", "--network", "none", "committed")
	assert.Contains(t, files, "/data/own\n")
	assert.Contains(t, files, "/data/added\n")
	assert.NotContains(t, files, "/data/removed", "a whiteout")

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), fmt.Appendf(nil, dockerfile, ref), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "copied"), []byte("copied"), 0o644))
	docker.run(t, "build", "--quiet", "--network", "none", "--tag", "built", dir)
	files = docker.run(t, "run", "--rm", "--network", "none", "built")
	for _, path := range []string{"/out/made\n", "/out/copied\n", "/data/kept\n", "/data/added\n"} {
		assert.Contains(t, files, path)
	}
	assert.NotContains(t, files, "/data/made", "that was in the other stage")

	docker.run(t, "run", "--detach", "--name", "waits", "--network", "none", ref, "wait")
	docker.run(t, "stop", "waits")
	docker.run(t, "rm", "waits", "writes")
	docker.run(t, "rmi", "built", "committed", ref)
	docker.run(t, "system", "prune", "--all", "--force")
	c.collect(t, "moby")
	require.NoError(t, d.snapshotter(t).Cleanup(context.Background()))
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
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
	serveReady(t, exec.Command(program, "--config-file", file, "--host", k.address), &syncBuffer{}, dir)
	return k
}

// run runs docker and answers what it wrote to stdout.
func (k *docker) run(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", append([]string{"--host", k.address}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "docker %s: %s%s", strings.Join(args, " "), &stdout, &stderr)
	return stdout.String()
}
