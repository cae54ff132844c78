package integration

import (
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testimage"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

const (
	podImage       = "registry.test/zfstpl/pod:1"
	namedUserImage = "registry.test/zfstpl/user:1"
	webImage       = "registry.test/zfstpl/web:1"
	sleeps         = "trap exit TERM; sleep 100000 & wait"
)

// serveNodeImages serves the images of pods.
func serveNodeImages(t testing.TB) *images {
	t.Helper()
	i := serveImages(t)
	i.serveSandbox(t)
	i.add(t, v1.Config{}, nil, "zfstpl/pod:1")
	i.add(t, v1.Config{User: "default-user"}, nil, "zfstpl/user:1")
	i.add(t, v1.Config{Entrypoint: []string{"/web", "127.0.0.1:18080"}}, [][]testimage.File{ownProgram(t, "web", "web", 0o755)}, "zfstpl/web:1")
	return i
}

// end takes everything off the node and asserts that nothing is left in the pool, but
// the templates that the daemon keeps for the next pull.
func (n *node) end(t testing.TB, d *harness.Daemon, base *testpool.Base, pods ...string) {
	t.Helper()
	for _, name := range pods {
		n.take(t, name)
	}
	n.containerd.endPods(t)
	n.containerd.collect(t, "k8s.io")
	d.Clean(t)
	kept := slices.Contains(d.Cmd.Args, keepTemplates)
	left := slices.DeleteFunc(base.Names(t), func(name string) bool { return kept && strings.HasPrefix(name, "/storage/sha256:") })
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, left)
}

// A kubelet runs a pod of ordinary containers: its probes run programs in them, what
// fails is restarted on the image as it was, a user that is not root works on a root
// that is read-only, and what a container writes is accounted.
func TestKubeletRunsOrdinaryPods(t *testing.T) {
	onlyOnce(t, olderReleases, aCase) // the newer ones run TestPodOfAKubeletLeavesNothing
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	n := startNode(t, startDefaultContainerd(t, d, forPods(t, serveNodeImages(t))), nil)

	works := newContainer("works", podImage, sleeps)
	works["readinessProbe"] = execProbe("test", "-e", "/tmp/ready")
	works["livenessProbe"] = execProbe("test", "!", "-e", "/tmp/dead")
	restricted := newContainer("restricted", namedUserImage, sleeps)
	restricted["securityContext"] = settings{"readOnlyRootFilesystem": true, "runAsNonRoot": true, "runAsUser": 1000, "allowPrivilegeEscalation": false}
	named := newContainer("named", namedUserImage, sleeps)
	web := settings{"name": "web", "image": webImage, "imagePullPolicy": "IfNotPresent", "readinessProbe": settings{
		"httpGet": settings{"host": "127.0.0.1", "port": 18080}, "periodSeconds": 5, "timeoutSeconds": 60,
	}}
	n.put(t, newPod("app", works, restricted, named, web))
	n.ready(t, "app", "restricted")
	n.ready(t, "app", "named")
	n.ready(t, "app", "web")

	assert.Equal(t, "1000\n", n.run(t, "app", "restricted", "id -u"))
	assert.Equal(t, "default-user\n", n.run(t, "app", "named", "id -un"))
	assert.Contains(t, n.runFails(t, "app", "restricted", "touch /tmp/new"), "Read-only file system")
	n.run(t, "app", "works", "dd if=/dev/urandom of=/tmp/data bs=4k count=256")
	n.run(t, "app", "works", "touch /tmp/ready")
	n.ready(t, "app", "works")
	eventually(t, "what a container wrote is accounted", func() bool {
		return n.written(t, "app", "works").UsedBytes >= 1<<20
	})
	images := n.summary(t).Node.Runtime.ImageFs
	assert.NotZero(t, images.CapacityBytes)
	assert.Less(t, images.AvailableBytes, images.CapacityBytes)

	n.run(t, "app", "works", "touch /tmp/dead")
	n.container(t, "app", "works", "is restarted", func(c containerStatus) bool { return c.RestartCount > 0 })
	eventually(t, "a restarted container begins with its image", func() bool {
		files, err := n.tryRun("app", "works", "ls /tmp")
		return err == nil && strings.TrimSpace(files) == ""
	})
	n.run(t, "app", "works", "touch /tmp/ready")
	n.ready(t, "app", "works")

	n.end(t, d, base, "app")
}

// A pod with hostUsers: false has a user namespace, in which its root file system is
// its root's, without a copy of the image.
func TestKubeletRunsAPodInAUserNamespace(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes more; TestContainerInAUserNamespace does the same without a kubelet")
	}
	if containerd17(t) {
		t.Skip("containerd 1.7 has no user namespaces for a kubelet 1.37")
	}
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	n := startNode(t, startDefaultContainerd(t, d, withUserNamespaces(t, serveNodeImages(t))), nil)
	reachable(t, n.containerd.dir)

	p := newPod("mapped", newContainer("works", podImage, "touch /home/made && "+sleeps))
	p.Spec["hostUsers"], p.Spec["hostNetwork"] = false, false
	n.put(t, p)
	n.ready(t, "mapped", "works")
	mapped := strings.Fields(n.run(t, "mapped", "works", "cat /proc/self/uid_map"))
	require.Len(t, mapped, 3)
	assert.Equal(t, "0", mapped[0])
	assert.NotEqual(t, "0", mapped[1])
	assert.Equal(t, "0:0\n0:0\n", n.run(t, "mapped", "works", "stat -c %u:%g /bin/sh /home/made"))

	n.end(t, d, base, "mapped")
}
