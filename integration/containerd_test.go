package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testimage"
	"github.com/zfstpl/zfstpl/integration/tied"
	"github.com/zfstpl/zfstpl/plugin"
)

const testImage = "docker.io/zfstpl/test:1"

// containerd is a running containerd that uses a daemon of ours.
type containerd struct {
	dir     string // of its own files
	address string
	log     *harness.ProgramLog
	cmd     *exec.Cmd // of one that startContainerdWith started
}

// startContainerd starts the containerd in PATH with directories of its own
// and stops it when t ends.
func startContainerd(t testing.TB, d *harness.Daemon) *containerd {
	t.Helper()
	return startContainerdWith(t, d, func(int, string) string { return withoutCRI })
}

// withoutCRI is configuration without the plugins of Kubernetes.
const withoutCRI = "disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\"]\n"

// startContainerdWith is startContainerd with more configuration, for the version of
// its file and for a directory.
func startContainerdWith(t testing.TB, d *harness.Daemon, more func(version int, dir string) string) *containerd {
	t.Helper()
	c, version := newContainerd(t, d)
	config := fmt.Sprintf("version = %d\nroot = %q\nstate = %q\n%s[grpc]\n  address = %q\n%s",
		version, filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"), more(version, c.dir), c.address, containerdConfig(t, d, version))
	file := filepath.Join(c.dir, "config.toml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	c.cmd = exec.Command("containerd", "--config", file)
	serveReady(t, c.cmd, c.log, c.dir)
	return c
}

// newContainerd returns one that is not started, and which version its configuration
// has.
func newContainerd(t testing.TB, d *harness.Daemon) (*containerd, int) {
	t.Helper()
	d.EndStandIn()
	return newContainerdAt(t, d.Containerd())
}

// newContainerdAt returns a containerd that is not started and will serve address, and
// the version of its configuration.
func newContainerdAt(t testing.TB, address string) (*containerd, int) {
	t.Helper()
	said, err := exec.Command("containerd", "--version").Output()
	require.NoError(t, err, "containerd is wanted in PATH")
	t.Logf("%s", said)
	version := plugin.ContainerdConfig3
	if plugin.ContainerdIsOld(string(said)) {
		version = plugin.ContainerdConfig2
	}
	dir, err := os.MkdirTemp("", "zfstpl-ctd-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return &containerd{dir: dir, address: address, log: &harness.ProgramLog{}}, version
}

// containerdConfig is what a containerd's configuration needs to use the daemon.
func containerdConfig(t testing.TB, d *harness.Daemon, version int) string {
	t.Helper()
	text, err := plugin.ContainerdConfig(version, d.Address, d.Base.Root, true)
	require.NoError(t, err)
	return text
}

// startDefaultContainerd starts a containerd with the configuration it has by default
// and, in files of their own as administrators have them, what we print and more.
// 1.7 puts no tables of several files together: there it is all in one.
func startDefaultContainerd(t testing.TB, d *harness.Daemon, more func(version int, dir string) string) *containerd {
	t.Helper()
	c, version := newContainerd(t, d)
	if version == plugin.ContainerdConfig2 {
		return startContainerdWith(t, d, more)
	}
	c.serveDefault(t, version, map[string]string{"zfstpl.toml": containerdConfig(t, d, version), "test.toml": more(version, c.dir)})
	return c
}

// serveDefault starts a containerd 2.x with its default configuration and files of more.
func (c *containerd) serveDefault(t testing.TB, version int, more map[string]string) {
	t.Helper()
	config, err := exec.Command("containerd", "config", "default").Output()
	require.NoError(t, err)
	require.Contains(t, string(config), "'/etc/containerd/conf.d/*.toml'", "the default imports from there")
	dropIns := filepath.Join(c.dir, "conf.d")
	require.NoError(t, os.Mkdir(dropIns, 0o700))
	file := filepath.Join(c.dir, "config.toml")
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(config), "/etc/containerd/conf.d", dropIns)), 0o600))
	more["own.toml"] = fmt.Sprintf("[ttrpc]\naddress = %q\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = %q\n", c.address+".ttrpc", filepath.Join(c.dir, "opt"))
	for name, text := range more {
		text = fmt.Sprintf("version = %d\n%s", version, text)
		require.NoError(t, os.WriteFile(filepath.Join(dropIns, name), []byte(text), 0o600))
	}
	serveReady(t, exec.Command("containerd", "--config", file, "--address", c.address,
		"--root", filepath.Join(c.dir, "root"), "--state", filepath.Join(c.dir, "state")), c.log, c.dir)
}

// serveReady is serve of a program that notifies systemd when it is ready, and waits for
// that. dir is for its socket.
func serveReady(t testing.TB, cmd *exec.Cmd, log *harness.ProgramLog, dir string) {
	t.Helper()
	ready := harness.NotifySocket(t, dir)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.Path)
	exited := serve(t, cmd, log)
	select {
	case <-ready.Got:
	case err := <-exited:
		require.Fail(t, filepath.Base(cmd.Path)+" ended at its start", "%v\n%s", err, log)
	case <-time.After(harness.Patience):
		require.Fail(t, filepath.Base(cmd.Path)+" is not ready", "%s", log)
	}
}

// serve starts a program that is ended when t ends, and returns how it ended if
// that is before.
func serve(t testing.TB, cmd *exec.Cmd, log *harness.ProgramLog) (exited chan error) {
	t.Helper()
	cmd.Stdout, cmd.Stderr = log.Output(t), log.Output(t)
	require.NoError(t, tied.Start(cmd))
	exited = make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		name := filepath.Base(cmd.Path)
		if t.Failed() {
			t.Logf("%s's log:\n%s", name, log)
		}
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		select {
		case <-exited:
		case <-time.After(harness.Patience):
			assert.Fail(t, name+" does not end")
		}
	})
	return exited
}

// snapshotter is zfstpl as containerd's clients see it, in a namespace of its
// own whatever the caller's context says.
func (c *containerd) snapshotter(t testing.TB, namespace string) harness.Proxy {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+c.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(namespaces.WithNamespace(ctx, namespace), method, req, reply, conn, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(namespaces.WithNamespace(ctx, namespace), desc, conn, method, opts...)
		}))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return harness.NewProxy(conn)
}

// ctr runs ctr and returns what it wrote to stdout.
func (c *containerd) ctr(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", c.address}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "ctr %s: %s%s", strings.Join(args, " "), &stdout, &stderr)
	return stdout.String()
}

func writeTestImage(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	require.NoError(t, testimage.Write(path, testImage, harness.Binary(t, "app"),
		[]testimage.File{{Name: "data/kept", Content: []byte("kept")}, {Name: "data/removed", Content: []byte("removed")}},
		[]testimage.File{{Name: "data/.wh.removed"}, {Name: "data/added", Content: []byte("added")}, {Name: "data/linked", Link: "data/added"}},
	))
	return path
}

// The daemon is killed under a running container and started again: the
// container does not notice, and the daemon knows everything.
func TestContainersOutliveTheDaemon(t *testing.T) {
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base)
	c := startContainerd(t, d)
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeTestImage(t))

	c.ctr(t, "run", "--detach", "--snapshotter", "zfstpl", testImage, "waits", "/app", "wait")
	before := harness.Everything(t, c.snapshotter(t, "default"))
	d.Kill(t)
	assert.Contains(t, c.ctr(t, "tasks", "ls"), "RUNNING")
	d.Start(t)
	assert.Equal(t, before, harness.Everything(t, c.snapshotter(t, "default")))
	assert.Contains(t, c.ctr(t, "tasks", "ls"), "RUNNING")

	out := c.ctr(t, "run", "--rm", "--snapshotter", "zfstpl", testImage, "lists", "/app", "ls")
	assert.Contains(t, out, "/data/kept\n")
	assert.Contains(t, out, "/data/added\n")
	assert.NotContains(t, out, "/data/removed", "the whiteout was applied")

	c.ctr(t, "tasks", "kill", "--signal", "SIGKILL", "waits")
	c.ctr(t, "tasks", "delete", "--force", "waits")
	c.ctr(t, "containers", "delete", "waits")
	c.ctr(t, "images", "delete", "--sync", testImage)
	d.Clean(t)
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}
