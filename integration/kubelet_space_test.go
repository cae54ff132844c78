package integration

import (
	"crypto/rand"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testimage"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

const (
	largeLayer = 16 * harness.MiB
	// keepTemplates has a daemon keep templates that no image names, as it does by default.
	keepTemplates = "--cache-keep=168h"
)

// addLarge serves images with a large layer of their own each, and returns their names.
func (i *images) addLarge(t testing.TB, number int) (names []string) {
	t.Helper()
	for n := range number {
		noise := make([]byte, largeLayer)
		_, err := rand.Read(noise)
		require.NoError(t, err)
		name := fmt.Sprintf("zfstpl/large-%d:1", n)
		i.add(t, v1.Config{}, [][]testimage.File{{{Name: "noise", Content: noise}}}, name)
		names = append(names, "registry.test/"+name)
	}
	return names
}

// pulled returns which of the images the kubelet's containerd has.
func (n *node) pulled(t testing.TB, names ...string) (has []string) {
	t.Helper()
	list := n.containerd.crictl(t, "images", "--output", "json")
	for _, name := range names {
		if strings.Contains(list, strconv.Quote(name)) {
			has = append(has, name)
		}
	}
	return has
}

// spaceOf returns a number of bytes that ZFS has for a base.
func spaceOf(t testing.TB, base *testpool.Base, property string) uint64 {
	t.Helper()
	out, err := exec.Command("zfs", "get", "-Hpo", "value", property, base.String()).Output()
	require.NoError(t, err)
	bytes, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
	require.NoError(t, err)
	return bytes
}

// limitTo sets a quota of which the base has used the given percentage.
func limitTo(t testing.TB, base *testpool.Base, percent uint64) {
	t.Helper()
	require.NoError(t, exec.Command("sync").Run())
	require.NoError(t, exec.Command("zpool", "sync").Run())
	quota := spaceOf(t, base, "used") * 100 / percent
	out, err := exec.Command("zfs", "set", fmt.Sprintf("quota=%d", quota), base.String()).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// A kubelet sees how full the base is, with everything below it. Under pressure it says
// so, collects the images that no pod uses, evicts the pod that fills the node and takes
// no other; that makes room although zfstpl keeps the templates of collected images for
// the next pull. Then the pressure ends and the node takes pods again.
func TestKubeletEndsDiskPressure(t *testing.T) {
	onlyOnce(t, newerReleases, aClient)
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, keepTemplates)
	i := serveNodeImages(t)
	large := i.addLarge(t, 1)
	c := startDefaultContainerd(t, d, forPods(t, i))
	c.crictl(t, "pull", large[0]) // a kubelet collects no image that it sees for the first time
	a := startAPI(t)
	n := startNodeOf(t, c, a, settings{
		"imageMinimumGCAge": "1s", "evictionHard": evictionHard("10%"), "evictionPressureTransitionPeriod": "1s",
		"nodeStatusUpdateFrequency": "1s", "nodeStatusReportFrequency": "1s",
	})
	pressure := func(is string) {
		t.Helper()
		eventually(t, "DiskPressure is "+is, func() bool { return a.condition("DiskPressure") == is })
	}
	n.put(t, newPod("quiet", newContainer("works", podImage, sleeps)))
	n.ready(t, "quiet", "works")
	pressure("False")

	limitTo(t, base, 70)
	n.put(t, newPod("fills", newContainer("writes", podImage, "trap 'exit 1' TERM; while true; do cat /dev/urandom >>/noise; sleep 1; done")))
	pressure("True")
	n.put(t, newPod("late", newContainer("works", podImage, sleeps)))
	for _, name := range []string{"late", "fills"} {
		eventually(t, "pod "+name+" has failed", func() bool { return a.status(name, "phase") == "Failed" })
		assert.Equal(t, "Evicted", a.status(name, "reason"), a.status(name, "message"))
	}
	assert.Contains(t, a.status("late", "message"), "DiskPressure")
	assert.Empty(t, n.pulled(t, large...), "the image that no pod uses was collected first")
	n.ready(t, "quiet", "works")
	pressure("False")
	n.put(t, newPod("next", newContainer("works", podImage, sleeps)))
	n.ready(t, "next", "works")

	n.end(t, d, base, "fills", "late", "quiet", "next")
}

// evictionHard has a kubelet evict pods for want of room for images and containers, and
// for nothing else.
func evictionHard(imagefs string) map[string]string {
	return map[string]string{
		"imagefs.available": imagefs, "imagefs.inodesFree": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "memory.available": "1Mi",
	}
}

// full returns how many percent of its quota the base has used.
func full(t testing.TB, base *testpool.Base) uint64 {
	t.Helper()
	used, available := spaceOf(t, base, "used"), spaceOf(t, base, "available")
	return used * 100 / (used + available)
}

// A kubelet collects the images that no pod uses, of a node that is almost full, until
// there is room, although zfstpl keeps their templates; and by their age, of a node that
// has room.
func TestKubeletCollectsImages(t *testing.T) {
	if testing.Short() {
		t.Skip("a kubelet looks for images to collect every five minutes")
	}
	for name, more := range map[string]settings{
		"by threshold": {"imageGCHighThresholdPercent": 85, "imageGCLowThresholdPercent": 80},
		"by age":       {"imageMaximumGCAge": "1m"},
	} {
		t.Run(name, func(t *testing.T) {
			base := pool.NewBase(t)
			d := harness.StartDaemon(t, base, keepTemplates)
			i := serveNodeImages(t)
			large := i.addLarge(t, 3)
			c := startDefaultContainerd(t, d, forPods(t, i))
			for _, name := range large {
				c.crictl(t, "pull", name)
			}
			more["imageMinimumGCAge"] = "1s"
			n := startNode(t, c, more)
			n.put(t, newPod("app", newContainer("works", podImage, sleeps)))
			n.ready(t, "app", "works")
			require.Equal(t, large, n.pulled(t, large...))
			byThreshold := more["imageMaximumGCAge"] == nil
			if byThreshold {
				limitTo(t, base, 88)
			}
			const round = 7 * time.Minute
			require.Eventually(t, func() bool {
				left := len(n.pulled(t, large...))
				return left == 0 || byThreshold && left < len(large)
			}, round, time.Second, "images are collected")
			if byThreshold {
				eventually(t, "there is room", func() bool { return full(t, base) <= 80 })
			}
			assert.Equal(t, []string{podImage}, n.pulled(t, podImage), "a pod uses it")
			n.end(t, d, base, "app")
		})
	}
}
