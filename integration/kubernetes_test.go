package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/registry"
	"github.com/zfstpl/zfstpl/plugin"
)

// What a kubelet asks of containerd for a pod, from the pull to the last collection,
// with containerd's default configuration and what zfstpl prints. The images of the pod and of its sandbox
// are the same layers: the second moves none.
func TestPodOfAKubeletLeavesNothing(t *testing.T) {
	onlyOnce(t, newerReleases, aCase)
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	archive := writeTestImage(t)
	images, ref := serveImage(t, archive)
	sandboxes, sandbox := serveSandbox(t, archive)
	k := startKubelet(t, startDefaultContainerd(t, d, forKubernetes(sandbox)))

	k.pull(t, ref)
	assert.Equal(t, testLayers, images.Fetched().Layers)
	assert.Equal(t, testLayers, strings.Count(d.Log.String(), "applied layer"), "by our differ")
	pod := k.runPod(t)
	assert.Zero(t, sandboxes.Fetched().Layers, "they are here")
	k.checkCapacity(t, base.Root)

	first := k.run(t, pod, ref, 0, false)
	k.exec(t, first, "/app", "write", "/data/own", strings.Repeat("own", 10_000))
	assert.Contains(t, k.exec(t, first, "/app", "ls"), "/data/own\n")
	k.checkWritten(t, first, base.Root)

	k.kill(t, first)
	second := k.run(t, pod, ref, 1, false)
	files := k.exec(t, second, "/app", "ls")
	assert.Contains(t, files, "/data/added\n")
	assert.NotContains(t, files, "/data/removed", "a whiteout")
	assert.NotContains(t, files, "/data/own", "a restarted container begins with its image")

	readonly := k.run(t, pod, ref, 2, true)
	_, err := k.runtime.ExecSync(k.ctx, &cri.ExecSyncRequest{ContainerId: readonly, Cmd: []string{"/app", "ls"}})
	require.NoError(t, err)
	refused, err := k.runtime.ExecSync(k.ctx, &cri.ExecSyncRequest{ContainerId: readonly, Cmd: []string{"/app", "write", "/data/own", "x"}})
	require.NoError(t, err)
	assert.Contains(t, string(refused.GetStderr()), "read-only file system")

	k.removeImage(t, ref)
	assert.Contains(t, k.exec(t, second, "/app", "ls"), "/data/added\n", "an image's removal is nothing to its containers")
	k.kill(t, second)
	k.kill(t, readonly)
	k.endPod(t, pod)
	k.removeImage(t, sandbox)
	k.containerd.collect(t, "k8s.io")
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

// serveSandbox serves the archive's image with a program that waits, which is what a
// pod's sandbox runs.
func serveSandbox(t testing.TB, archive string) (*registry.Registry, string) {
	t.Helper()
	image, err := tarball.ImageFromPath(archive, nil)
	require.NoError(t, err)
	file, err := image.ConfigFile()
	require.NoError(t, err)
	config := file.Config
	config.Cmd = []string{"wait"}
	image, err = mutate.Config(image, config)
	require.NoError(t, err)
	return serveAs(t, image, "zfstpl/sandbox:1")
}

// forKubernetes has containerd serve kubelets. Its network configuration is looked for
// where there is none: the pods are on the machine's network.
func forKubernetes(sandbox string) func(version int, dir string) string {
	return func(version int, dir string) string {
		cni := fmt.Sprintf("conf_dir = %q\n", filepath.Join(dir, "cni"))
		if version == plugin.ContainerdConfig2 {
			return fmt.Sprintf("[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = %q\n", sandbox) +
				"[plugins.\"io.containerd.grpc.v1.cri\".cni]\n" + cni
		}
		return fmt.Sprintf("[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = %q\n", sandbox) +
			"[plugins.\"io.containerd.cri.v1.runtime\".cni]\n" + cni
	}
}

// kubelet asks what a kubelet asks.
type kubelet struct {
	ctx        context.Context
	containerd *containerd
	images     cri.ImageServiceClient
	runtime    cri.RuntimeServiceClient
	sandbox    *cri.PodSandboxConfig
}

func startKubelet(t testing.TB, c *containerd) *kubelet {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+c.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	ctx, cancel := context.WithTimeout(context.Background(), 4*harness.Patience)
	t.Cleanup(cancel)
	return &kubelet{
		ctx: ctx, containerd: c,
		images: cri.NewImageServiceClient(conn), runtime: cri.NewRuntimeServiceClient(conn),
		sandbox: &cri.PodSandboxConfig{
			Metadata:     &cri.PodSandboxMetadata{Name: "pod", Uid: "uid", Namespace: "test"},
			LogDirectory: t.TempDir(),
			DnsConfig:    &cri.DNSConfig{Servers: []string{"127.0.0.1"}},
			Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
			}},
		},
	}
}

func (k *kubelet) pull(t testing.TB, ref string) {
	t.Helper()
	_, err := k.images.PullImage(k.ctx, &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}, SandboxConfig: k.sandbox})
	require.NoError(t, err)
}

func (k *kubelet) removeImage(t testing.TB, ref string) {
	t.Helper()
	_, err := k.images.RemoveImage(k.ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref}})
	require.NoError(t, err)
}

func (k *kubelet) runPod(t testing.TB) (id string) {
	t.Helper()
	pod, err := k.runtime.RunPodSandbox(k.ctx, &cri.RunPodSandboxRequest{Config: k.sandbox})
	require.NoError(t, err)
	return pod.GetPodSandboxId()
}

func (k *kubelet) endPod(t testing.TB, id string) {
	t.Helper()
	_, err := k.runtime.StopPodSandbox(k.ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
	require.NoError(t, err)
	_, err = k.runtime.RemovePodSandbox(k.ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	require.NoError(t, err)
}

// run starts a container of the pod that waits.
func (k *kubelet) run(t testing.TB, pod, ref string, attempt uint32, readonly bool) (id string) {
	t.Helper()
	made, err := k.runtime.CreateContainer(k.ctx, &cri.CreateContainerRequest{
		PodSandboxId: pod, SandboxConfig: k.sandbox,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "waits", Attempt: attempt},
			Image:    &cri.ImageSpec{Image: ref},
			Args:     []string{"wait"},
			LogPath:  fmt.Sprintf("waits-%d.log", attempt),
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: k.sandbox.GetLinux().GetSecurityContext().GetNamespaceOptions(),
				ReadonlyRootfs:   readonly,
			}},
		},
	})
	require.NoError(t, err)
	_, err = k.runtime.StartContainer(k.ctx, &cri.StartContainerRequest{ContainerId: made.GetContainerId()})
	require.NoError(t, err)
	return made.GetContainerId()
}

func (k *kubelet) kill(t testing.TB, id string) {
	t.Helper()
	_, err := k.runtime.StopContainer(k.ctx, &cri.StopContainerRequest{ContainerId: id})
	require.NoError(t, err)
	_, err = k.runtime.RemoveContainer(k.ctx, &cri.RemoveContainerRequest{ContainerId: id})
	require.NoError(t, err)
}

// exec runs a program in a container and returns what it wrote.
func (k *kubelet) exec(t testing.TB, id string, command ...string) string {
	t.Helper()
	done, err := k.runtime.ExecSync(k.ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: command, Timeout: int64(harness.Patience.Seconds())})
	require.NoError(t, err)
	require.Zero(t, done.GetExitCode(), "%s", done.GetStderr())
	return string(done.GetStdout())
}

// checkCapacity asks where images are, and there for room, as a kubelet does before
// it lets a pod in: a place that has no blocks, or no inodes, makes the node unfit.
func (k *kubelet) checkCapacity(t testing.TB, root string) {
	t.Helper()
	eventually(t, "images take room", func() bool {
		info, err := k.images.ImageFsInfo(k.ctx, &cri.ImageFsInfoRequest{})
		if !assert.NoError(t, err) || !assert.Len(t, info.GetImageFilesystems(), 1) {
			return true
		}
		found := info.GetImageFilesystems()[0]
		return !assert.Equal(t, root, found.GetFsId().GetMountpoint()) || found.GetUsedBytes().GetValue() > 0
	})
	var room unix.Statfs_t
	require.NoError(t, unix.Statfs(root, &room))
	assert.NotZero(t, room.Blocks)
	assert.NotZero(t, room.Bavail)
	assert.NotZero(t, room.Files)
}

// checkWritten asks what a container has written, until it gets a result.
func (k *kubelet) checkWritten(t testing.TB, id, root string) {
	t.Helper()
	eventually(t, "what a container wrote is accounted", func() bool {
		stats, err := k.runtime.ContainerStats(k.ctx, &cri.ContainerStatsRequest{ContainerId: id})
		if !assert.NoError(t, err) {
			return true
		}
		layer := stats.GetStats().GetWritableLayer()
		return layer.GetUsedBytes().GetValue() >= 4096 && assert.Equal(t, root, layer.GetFsId().GetMountpoint())
	})
}
