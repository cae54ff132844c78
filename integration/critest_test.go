package integration

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/docs"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testimage"
	"github.com/zfstpl/zfstpl/plugin"
)

var critestFocus = flag.String("critest.focus", "", "run only the specs of TestCritest whose name matches this regular expression")

// critestTime is the longest that one run of critest may take where it is emulated.
const critestTime = 40 * time.Minute

// spec is what critest reports of one of its specs.
type spec struct {
	Texts   []string `json:"ContainerHierarchyTexts"`
	Kind    string   `json:"LeafNodeType"`
	Text    string   `json:"LeafNodeText"`
	State   string
	Failure struct{ Message string }
	RunTime time.Duration
}

func (s spec) name() string {
	name := strings.Join(append(s.Texts, s.Text), ": ")
	return strings.TrimSuffix(strings.TrimPrefix(name, "[k8s.io] "), " [Conformance]")
}

// Kubernetes's own tests of a container runtime, on zfstpl and on overlayfs: what passes
// there passes here, and what passes nowhere is known, with the reason, and stands in
// the document.
func TestCritest(t *testing.T) {
	for _, o := range omittedSpecs {
		assert.Contains(t, docs.Clients, "| "+o.reason+" |")
	}
	if testing.Short() {
		t.Skip("takes half an hour; TestCritestOfSnapshots runs the specs that depend most on the snapshotter")
	}
	here := critestOnZFS(t, *critestFocus)
	var there map[string]spec
	t.Run("overlayfs", func(t *testing.T) {
		i := serveImages(t)
		i.serveCritest(t)
		c := startOverlayContainerd(t, forPods(t, i))
		reachable(t, c.dir)
		there = c.critestBoth(t, *critestFocus)
		c.endPods(t)
	})
	require.Len(t, there, len(here))
	passed := 0
	for name, s := range here {
		if name == chanceSpec {
			continue
		}
		other := there[name]
		if s.State == "passed" {
			passed++
		}
		assert.False(t, other.State == "passed" && s.State != "passed", "%s: %s on zfstpl and passed on overlayfs: %s", name, s.State, s.Failure.Message)
		if !containerd17(t) { // it lacks more
			assert.Equal(t, other.State == "passed", omittedReason(name) == "", "%s: %s on overlayfs: %s", name, other.State, other.Failure.Message)
		}
	}
	t.Logf("%d of %d specs passed on zfstpl", passed, len(here))
}

// snapshotSpecs are the specs that depend most on the snapshotter.
const snapshotSpecs = `ReadOnlyRootfs|simultaneous RemoveImage|execSync \[Conf|removing running container|enforce read-only|RunAsUserName|NamespaceMode_POD`

// The specs of critest that depend most on the snapshotter pass.
func TestCritestOfSnapshots(t *testing.T) {
	if !testing.Short() {
		t.Skip("TestCritest runs all specs")
	}
	onlyOnce(t, newerReleases, aClient)
	for name, s := range critestOnZFS(t, snapshotSpecs) {
		if s.State == "skipped" && containerd17(t) { // it lacks user namespaces and image volumes
			continue
		}
		assert.Equal(t, "passed", s.State, "%s: %s", name, s.Failure.Message)
	}
}

func critestOnZFS(t *testing.T, focus string) (specs map[string]spec) {
	t.Helper()
	t.Run("zfstpl", func(t *testing.T) {
		i := serveImages(t)
		i.serveCritest(t)
		base := pool.NewBase(t)
		d := harness.StartDaemon(t, base)
		c := startDefaultContainerd(t, d, forPods(t, i))
		reachable(t, c.dir)
		specs = c.critestBoth(t, focus)
		c.endPods(t)
		c.collect(t, "k8s.io")
		d.Clean(t)
		assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
	})
	return specs
}

// critestBoth runs the specs with the default handler, and those of user namespaces
// with the handler that has them.
func (c *containerd) critestBoth(t testing.TB, focus string) map[string]spec {
	t.Helper()
	const namespaces = "UserNamespaces"
	specs := c.critest(t, "-ginkgo.focus", focus, "-ginkgo.skip", namespaces)
	args := []string{"-runtime-handler", userNamespaces, "-ginkgo.focus", namespaces + ".*(" + focus + ")"}
	for name, s := range c.critest(t, args...) {
		specs[name] = s
	}
	return specs
}

// critest runs critest and returns the specs that it chose, by name.
func (c *containerd) critest(t testing.TB, args ...string) map[string]spec {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), critestTime)
	defer cancel()
	dir := t.TempDir()
	report := filepath.Join(dir, "report.json")
	args = append([]string{
		"-test.timeout", critestTime.String(), "-ginkgo.timeout", critestTime.String(), "-ginkgo.no-color", "-ginkgo.json-report", report,
		"-runtime-endpoint", "unix://" + c.address, "-nri-socket", nriSocket(c.dir),
	}, args...)
	cmd := exec.CommandContext(ctx, "critest", args...)
	cmd.Dir = dir
	out, runErr := cmd.CombinedOutput()
	text, err := os.ReadFile(report)
	require.NoError(t, err, "critest: %v: %s", runErr, out)
	var suites []struct{ SpecReports []spec }
	require.NoError(t, json.Unmarshal(text, &suites))
	specs := make(map[string]spec)
	for _, suite := range suites {
		for _, s := range suite.SpecReports {
			if s.Kind != "It" || s.State == "skipped" && s.Failure.Message == "" { // not chosen
				continue
			}
			specs[s.name()] = s
			t.Logf("critest: %s: %s in %s %s", s.name(), s.State, s.RunTime.Round(time.Millisecond), s.Failure.Message)
		}
	}
	if *critestFocus == "" {
		require.NotEmpty(t, specs, "critest: %v: %s", runErr, out)
	}
	return specs
}

// omittedSpecs are the specs that pass on no snapshotter in the testbed, and why.
var omittedSpecs = []struct{ pattern, reason string }{
	{`^AppArmor: `, "the guest lacks apparmor_parser"},
	{`^Image Manager: public image with digest `, "the digest is that of one image in a public registry"},
	{`^Image Volume .*: should return image digest in ContainerStatus mounts$`, "containerd 2.4 does not report the digest"},
	{`^NRI: plugin synchronization: should receive (a callback for container created during|information about all containers without the race)`,
		"containerd 2.4 does not keep to this part of NRI, as critest says itself"},
	{`^PodSandbox: .*: runtime should support listing pod sandbox metrics$`, "containerd 2.4 describes container_spec_memory_swap_limit_bytes and does not report it"},
	{`: runtime should support MaskedPaths$`, "the shell of Debian's busybox runs the program that is hidden from within itself"},
}

// chanceSpec passes or fails by chance on every snapshotter: its limit of 15 MiB of memory
// is about what Debian's runc needs to start a container.
const chanceSpec = "Container OOM: runtime should output OOMKilled reason: should terminate with exitCode 137 and reason OOMKilled"

// omittedReason returns why a spec passes nowhere, or nothing.
func omittedReason(name string) string {
	for _, o := range omittedSpecs {
		if regexp.MustCompile(o.pattern).MatchString(name) {
			return o.reason
		}
	}
	return ""
}

// serveCritest serves what critest pulls: every name with what its specs expect of it.
func (i *images) serveCritest(t testing.TB) {
	t.Helper()
	const (
		staging = "k8s-staging-cri-tools/"
		e2e     = "e2e-test-images/"
	)
	i.serveSandbox(t)
	shell := v1.Config{Cmd: []string{"sh"}}
	i.add(t, shell, nil, e2e+"busybox:1.29-2")
	app := ownProgram(t, "app", "app", 0o755)
	i.add(t, v1.Config{Entrypoint: []string{"/app", "wait"}}, [][]testimage.File{app}, "pause:3.9")
	i.add(t, v1.Config{Entrypoint: []string{"/nnp", "euid"}}, [][]testimage.File{ownProgram(t, "app", "nnp", 0o4755)}, e2e+"nonewprivs:1.3")

	web := [][]testimage.File{ownProgram(t, "web", "nginx", 0o755)}
	i.add(t, v1.Config{Entrypoint: []string{"/nginx", ":80", "master process"}}, web, e2e+"nginx:1.14-2", e2e+"httpd:2.4.39-4")
	i.add(t, v1.Config{Entrypoint: []string{"/nginx", ":12003", "master process"}}, web, staging+"hostnet-nginx-amd64:latest")

	for _, name := range []string{"image-latest:latest", "image-tag:test", "image-tag:all", "image-1:latest", "image-2:latest", "image-3:latest"} {
		i.add(t, v1.Config{Cmd: []string{"sh"}, Labels: map[string]string{"name": name}}, nil, staging+"test-"+name)
	}
	tags := staging + "test-image-tags:"
	i.add(t, v1.Config{Cmd: []string{"sh"}, Labels: map[string]string{"name": "tags"}}, nil, tags+"1", tags+"2", tags+"3")
	for name, user := range map[string]string{
		"user-uid": "1002", "user-username": "www-data", "user-uid-group": "1003:users", "user-username-group": "www-data:www-data",
		"predefined-group": "1000",
	} {
		i.add(t, v1.Config{Cmd: []string{"sh"}, User: user}, nil, staging+"test-image-"+name+":latest")
	}
}

// startOverlayContainerd starts a containerd that knows nothing of zfstpl.
func startOverlayContainerd(t testing.TB, more func(version int, dir string) string) *containerd {
	t.Helper()
	dir, err := os.MkdirTemp("", "zfstpl-run-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	c, version := newContainerdAt(t, filepath.Join(dir, "containerd.sock"))
	if version == plugin.ContainerdConfig3 {
		c.serveDefault(t, version, map[string]string{"test.toml": more(version, c.dir)})
		return c
	}
	config := fmt.Sprintf("version = %d\nroot = %q\nstate = %q\n[grpc]\naddress = %q\n%s",
		version, filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"), c.address, more(version, c.dir))
	file := filepath.Join(c.dir, "config.toml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	serveReady(t, exec.Command("containerd", "--config", file), c.log, c.dir)
	return c
}
