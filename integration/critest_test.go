package integration

import (
	"context"
	"encoding/json"
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
)

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
		t.Skip("takes most of an hour; TestCritestOfSnapshots runs the specs that depend most on the snapshotter")
	}
	here := critestOnZFS(t, "")
	var there map[string]spec
	t.Run("overlayfs", func(t *testing.T) {
		i := serveImages(t)
		i.serveCritest(t)
		c := startOverlayContainerd(t, forPods(t, i))
		reachable(t, c.dir)
		there = c.critestBoth(t, "")
		c.endPods(t)
	})
	require.Len(t, there, len(here))
	passed := 0
	for name, s := range here {
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
	for name, s := range critestOnZFS(t, snapshotSpecs) {
		if s.State != "skipped" || omittedReason(name) == "" {
			assert.Equal(t, "passed", s.State, "%s: %s", name, s.Failure.Message)
		}
	}
}

func critestOnZFS(t *testing.T, focus string) (specs map[string]spec) {
	t.Helper()
	t.Run("zfstpl", func(t *testing.T) {
		i := serveImages(t)
		i.serveCritest(t)
		base := pool.NewBase(t)
		d := startDaemon(t, base)
		c := startDefaultContainerd(t, d, forPods(t, i))
		reachable(t, c.dir)
		specs = c.critestBoth(t, focus)
		c.endPods(t)
		c.collect(t, "k8s.io")
		require.NoError(t, d.snapshotter(t).Cleanup(context.Background()))
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
	require.NotEmpty(t, specs, "critest: %v: %s", runErr, out)
	return specs
}

// omittedSpecs are the specs that pass on no snapshotter in the testbed, and why.
var omittedSpecs = []struct{ pattern, reason string }{
	{`^AppArmor: `, "the guest lacks apparmor_parser"},
	{`^Image Manager: public image with digest `, "the digest is that of one image in a public registry"},
	{`^Image Volume .*: should return image digest in ContainerStatus mounts$`, "containerd 2.4 does not report the digest"},
	{`^NRI: plugin synchronization: should receive (a callback for container created during|information about all containers without the race)`,
		"containerd 2.4 does not keep to this part of NRI, as critest says itself"},
	{`: runtime should support MaskedPaths$`, "the shell of Debian's busybox runs the program that is hidden from within itself"},
}

// omittedReason returns why a spec passes nowhere, or nothing.
func omittedReason(name string) string {
	for _, o := range omittedSpecs {
		if regexp.MustCompile(o.pattern).MatchString(name) {
			return o.reason
		}
	}
	return ""
}
