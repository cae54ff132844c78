package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/plugin"
)

// userNamespaces is the handler of pods with user namespaces.
const userNamespaces = "userns"

// unfiltered is a runc that maps mounts, which Debian's runc does not. It is built
// without seccomp, and a kubelet starts no pod without that: the script takes the filter
// of system calls out of what the runc is to run.
const unfiltered = `#!/bin/sh
previous=
for argument; do
	if [ "$previous" = --bundle ]; then
		jq 'del(.linux.seccomp)' "$argument/config.json" >"$argument/unfiltered.json" || exit 1
		mv "$argument/unfiltered.json" "$argument/config.json"
	fi
	previous=$argument
done
exec docker-runc "$@"
`

// forPods has containerd run pods: with images that the test serves, on a bridge of the
// pods' own, and with a handler for user namespaces.
func forPods(t testing.TB, i *images) func(version int, dir string) string {
	t.Helper()
	return func(version int, dir string) string {
		cni := writeNetwork(t, dir)
		runc := filepath.Join(dir, "runc")
		require.NoError(t, os.WriteFile(runc, []byte(unfiltered), 0o700))
		images, runtime := `plugins."io.containerd.cri.v1.images"`, `plugins."io.containerd.cri.v1.runtime"`
		pinned, sandbox := images+".pinned_images", "sandbox"
		bin := fmt.Sprintf("bin_dirs = [%q]\n", cniPlugins(t))
		if version == plugin.ContainerdConfig2 {
			images = `plugins."io.containerd.grpc.v1.cri"`
			runtime, pinned, sandbox = images, images, "sandbox_image"
			bin = fmt.Sprintf("bin_dir = %q\n", cniPlugins(t))
		}
		var b strings.Builder
		fmt.Fprintf(&b, "[%s]\n%s = %q\n", pinned, sandbox, "registry.test/"+sandboxName)
		fmt.Fprintf(&b, "[%s.registry]\nconfig_path = %q\n", images, i.hosts(t, dir))
		fmt.Fprintf(&b, "[%s.cni]\nconf_dir = %q\n%s", runtime, cni, bin)
		for handler, program := range map[string]string{"runc": "runc", userNamespaces: runc} {
			fmt.Fprintf(&b, "[%[1]s.containerd.runtimes.%[2]s]\nruntime_type = \"io.containerd.runc.v2\"\n"+
				"[%[1]s.containerd.runtimes.%[2]s.options]\nBinaryName = %[3]q\n", runtime, handler, program)
		}
		fmt.Fprintf(&b, "[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = false\nsocket_path = %q\nplugin_path = %q\nplugin_config_path = %q\n",
			nriSocket(dir), filepath.Join(dir, "nri"), filepath.Join(dir, "nri"))
		return b.String()
	}
}

func nriSocket(dir string) string { return filepath.Join(dir, "nri.sock") }

// cniPlugins returns the directory of the plugins, which is beside that of the kubelet.
func cniPlugins(t testing.TB) string {
	t.Helper()
	kubelet, err := exec.LookPath("kubelet")
	require.NoError(t, err, "the kubelet is wanted in PATH; the testbed has it")
	dir := filepath.Join(filepath.Dir(filepath.Dir(kubelet)), "cni")
	require.DirExists(t, dir)
	return dir
}

const network = `{"cniVersion": "1.0.0", "name": %[1]q, "plugins": [
 {"type": "bridge", "bridge": %[1]q, "isGateway": true, "promiscMode": true,
  "ipam": {"type": "host-local", "dataDir": %[2]q, "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "backend": "nftables", "snat": true, "capabilities": {"portMappings": true}}
]}`

// writeNetwork configures the bridge of a containerd's pods, and removes it when t ends.
func writeNetwork(t testing.TB, dir string) string {
	t.Helper()
	const name = "zfstpl0"
	cni := filepath.Join(dir, "cni")
	require.NoError(t, os.Mkdir(cni, 0o700))
	text := fmt.Sprintf(network, name, filepath.Join(dir, "addresses"))
	require.NoError(t, os.WriteFile(filepath.Join(cni, "10-test.conflist"), []byte(text), 0o600))
	t.Cleanup(func() { _ = exec.Command("ip", "link", "delete", name).Run() }) // without a pod there is no bridge
	return cni
}

// withUserNamespaces has a containerd 2.x run pods as forPods does, all by the handler of
// pods with user namespaces: a kubelet without an API server knows no other than the
// default.
func withUserNamespaces(t testing.TB, i *images) func(version int, dir string) string {
	t.Helper()
	pods := forPods(t, i)
	return func(version int, dir string) string {
		const table = `plugins."io.containerd.cri.v1.runtime".containerd`
		return pods(version, dir) + fmt.Sprintf("[%s]\ndefault_runtime_name = %q\n", table, userNamespaces)
	}
}

// endPods removes all pods, also those that a failed spec left, and all images.
func (c *containerd) endPods(t testing.TB) {
	t.Helper()
	c.crictl(t, "rmp", "--all", "--force")
	c.crictl(t, "rmi", "--all")
}

// crictl runs crictl and returns what it wrote to stdout.
func (c *containerd) crictl(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*harness.Patience)
	defer cancel()
	config := filepath.Join(c.dir, "crictl.yaml")
	require.NoError(t, os.WriteFile(config, []byte("timeout: 120\n"), 0o600))
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(ctx, "crictl", append([]string{"--config", config, "--runtime-endpoint", "unix://" + c.address}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "crictl %s: %s%s", strings.Join(args, " "), &stdout, &stderr)
	return stdout.String()
}
