package integration

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testimage"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// restoredRecord is what the daemon's log has of each record that it restored.
const restoredRecord = "restored record of lost layer"

// offline stops the daemon, does something to the base, and starts the daemon again. It
// waits until containerd speaks to the daemon, without a word about what is there.
func (c *containerd) offline(t testing.TB, d *harness.Daemon, do func()) {
	t.Helper()
	d.Stop(t)
	do()
	d.Start(t)
	eventually(t, "containerd reaches the daemon", func() bool {
		_, err := c.try("snapshots", "--snapshotter", "zfstpl", "prepare", "probe")
		return err == nil
	})
	c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "rm", "probe")
}

// loseRecords takes the records of committed snapshots out of the pool. keep says which
// templates keep theirs.
func loseRecords(t testing.TB, base *testpool.Base, keep func(template string) bool) (lost int) {
	t.Helper()
	for _, d := range base.List(t) {
		if !strings.HasPrefix(d.Name, base.Storage()+"/") || keep(d.Name) {
			continue
		}
		var ops []zfs.Op
		for _, prop := range slices.Sorted(maps.Keys(d.Props)) {
			if strings.HasPrefix(prop, "zfstpl:record:") {
				ops = append(ops, zfs.Inherit(d.Name, prop))
			}
		}
		if len(ops) > 0 {
			require.NoError(t, base.Client.Apply(context.Background(), ops...))
			lost++
		}
	}
	return lost
}

// collectAll removes every committed snapshot, children first, as the collection of a
// second containerd does that has the same base.
func collectAll(t testing.TB, base *testpool.Base) (lost int) {
	t.Helper()
	ctx := context.Background()
	root, err := os.OpenRoot(base.Root)
	require.NoError(t, err)
	defer root.Close()
	sn, err := snapshotter.New(ctx, base.Client, snapshotter.Config{Base: base.Base, Root: root, CacheKeep: snapshotter.KeepForever})
	require.NoError(t, err)
	defer func() { require.NoError(t, sn.Close()) }()
	for left := harness.Everything(t, sn); len(left) > 0; left = harness.Everything(t, sn) {
		for name := range left {
			if !slices.ContainsFunc(slices.Collect(maps.Values(left)), func(i snapshots.Info) bool { return i.Parent == name }) {
				require.NoError(t, sn.Remove(ctx, name))
				lost++
			}
		}
	}
	return lost
}

// destroyTemplates destroys all layers, and what stands on them. The daemon is stopped.
func destroyTemplates(t testing.TB, d *harness.Daemon) {
	t.Helper()
	base := d.Base
	require.NoError(t, testpool.Unmount(d.Address))
	for before := 0; before != len(base.List(t)); { // in any order, leaves go first
		list := base.List(t)
		before = len(list)
		for _, d := range list {
			if strings.HasPrefix(d.Name, base.Storage()+"/sha256:") || strings.HasPrefix(d.Name, base.Runtime()+"/") {
				_, err := base.Client.Destroy(context.Background(), "extracted", []string{d.Name})
				require.NoError(t, err)
			}
		}
	}
	require.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

// try is ctr for what may fail: it returns what ctr wrote.
func (c *containerd) try(args ...string) (output string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	var all bytes.Buffer
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", c.address}, args...)...)
	cmd.Stdout, cmd.Stderr = &all, &all
	err = cmd.Run()
	return all.String(), err
}

func (c *containerd) tryRun(ref string) (output string, err error) {
	return c.try("run", "--rm", "--snapshotter", "zfstpl", ref, "tries", "/app", "ls")
}

// writeTallImage is the test's image with one more layer, under another name.
func writeTallImage(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tall.tar")
	require.NoError(t, testimage.Write(path, "docker.io/zfstpl/tall:1", harness.Binary(t, "app"),
		[]testimage.File{{Name: "data/kept", Content: []byte("kept")}, {Name: "data/removed", Content: []byte("removed")}},
		[]testimage.File{{Name: "data/.wh.removed"}, {Name: "data/added", Content: []byte("added")}, {Name: "data/linked", Link: "data/added"}},
		[]testimage.File{{Name: "data/tall", Content: []byte("tall")}},
	))
	return path
}

// containerd's database names layers whose records the pool has lost. containerd runs,
// pulls, unpacks and collects as if nothing had happened.
func TestContainerdWorksWithLostRecords(t *testing.T) {
	for what, lose := range map[string]func(t testing.TB, base *testpool.Base, ref string) int{
		"the bottom layer's": func(t testing.TB, base *testpool.Base, _ string) int {
			return loseRecords(t, base, func(template string) bool { return !isBottom(t, base, template) })
		},
		"the top layer's": func(t testing.TB, base *testpool.Base, _ string) int {
			return loseRecords(t, base, func(template string) bool { return !isTop(t, base, template) })
		},
		"all": func(t testing.TB, base *testpool.Base, _ string) int {
			return loseRecords(t, base, func(string) bool { return false })
		},
		"all, collected for another containerd": func(t testing.TB, base *testpool.Base, _ string) int {
			return collectAll(t, base)
		},
	} {
		t.Run(what, func(t *testing.T) {
			onlyOnce(t, strings.HasPrefix(what, "all"), aClient)
			base := pool.NewBase(t)
			d := harness.StartDaemon(t, base, "--cache-keep", "forever")
			c := startContainerd(t, d)
			_, ref := serveImage(t, writeTestImage(t))
			c.pull(t, "default", ref)
			first := c.lists(t, "default", ref)
			c.collect(t, "default") // the snapshot of the container that has ended is not to be lost
			before := identities(t, base)
			sizes := c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "usage")

			var lost int
			c.offline(t, d, func() { lost = lose(t, base, ref) })
			require.NotZero(t, lost)
			restored := func() int { return strings.Count(d.Log.String(), restoredRecord) }

			assert.Equal(t, first, c.lists(t, "default", ref), "it runs")
			assert.Equal(t, sizes, c.ctr(t, "snapshots", "--snapshotter", "zfstpl", "usage"), "all is there, with its usage")
			assert.Equal(t, lost, restored(), "one line for each")
			c.pull(t, "default", ref)
			c.pullByClient(t, "default", ref)
			assert.Equal(t, first, c.lists(t, "default", ref), "it was pulled again")
			assert.Equal(t, before, identities(t, base), "the very same templates")

			c.ctr(t, "images", "import", "--snapshotter", "zfstpl", writeTallImage(t))
			assert.Contains(t, c.lists(t, "default", "docker.io/zfstpl/tall:1"), "/data/tall\n", "it is unpacked upon")
			c.forget(t, d, "default", ref)
			assert.Contains(t, c.lists(t, "default", "docker.io/zfstpl/tall:1"), "/data/added\n", "what another image needs is not collected")
			c.offline(t, d, func() { base.Check(t) })
			assert.Contains(t, c.lists(t, "default", "docker.io/zfstpl/tall:1"), "/data/added\n")
			assert.Zero(t, restored(), "none was lost again")
			c.forget(t, d, "default", "docker.io/zfstpl/tall:1")
			assert.Empty(t, d.RecordNames(t), "everything is collected")
		})
	}
}

// isBottom reports whether a template is a layer on the empty one, and isTop whether it
// is one on which no other layer stands.
func isBottom(t testing.TB, base *testpool.Base, template string) bool {
	t.Helper()
	return slices.ContainsFunc(base.List(t), func(d zfs.Dataset) bool {
		return d.Name == template && d.Origin == base.Empty().Snapshot()
	})
}

func isTop(t testing.TB, base *testpool.Base, template string) bool {
	t.Helper()
	return template != base.Empty().Dataset() &&
		!slices.ContainsFunc(base.List(t), func(d zfs.Dataset) bool {
			return strings.HasPrefix(d.Name, base.Storage()+"/") && d.Origin == template+"@extracted"
		})
}

// The pool is rewound to a checkpoint, and containerd's database is elsewhere. An image
// whose layers are in the pool runs. For one that was pulled later ctr says which
// commands bring it back, and they do.
func TestRewoundPoolServesItsLayersAndNamesTheFix(t *testing.T) {
	onlyOnce(t, olderReleases, aCase)
	p, err := testpool.Create(512 * harness.MiB)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close(context.Background())) })
	base := p.NewBase(t)
	d := harness.StartDaemon(t, base, "--cache-keep", "forever")
	c := startContainerd(t, d)
	archive, tall := writeTestImage(t), writeTallImage(t)
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", archive)
	first := c.lists(t, "default", testImage)
	c.forget(t, d, "default", testImage)
	zpoolCommand(t, "checkpoint", p.Name)
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", archive)
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", tall)
	const tallImage = "docker.io/zfstpl/tall:1"
	require.Contains(t, c.lists(t, "default", tallImage), "/data/tall\n")

	c.offline(t, d, func() {
		zpoolCommand(t, "export", p.Name)
		zpoolCommand(t, "import", "-d", p.Dir, "-o", "cachefile=none", "--rewind-to-checkpoint", p.Name)
	})
	for _, name := range d.RecordNames(t) {
		assert.NotContains(t, name, "sha256:", "the pool has no record of what containerd knows")
	}

	assert.Equal(t, first, c.lists(t, "default", testImage), "its layers are in the pool")
	assert.Equal(t, 1, strings.Count(d.Log.String(), restoredRecord))
	for range 2 {
		out, err := c.tryRun(tallImage)
		require.Error(t, err, "the layer of the other was made later")
		t.Logf("%s", out)
		assert.Contains(t, out, "ctr images rm --sync")
		out, err = c.try("images", "import", "--snapshotter", "zfstpl", tall) // changes nothing
		t.Logf("import: %v %s", err, out)
	}
	c.ctr(t, "images", "rm", "--sync", tallImage)
	c.ctr(t, "images", "import", "--snapshotter", "zfstpl", tall)
	assert.Contains(t, c.lists(t, "default", tallImage), "/data/tall\n", "the way out")
	assert.Equal(t, first, c.lists(t, "default", testImage))
	c.forget(t, d, "default", tallImage)
	c.forget(t, d, "default", testImage)
	assert.Empty(t, d.RecordNames(t))
}

// The pool was restored without the layers of an image. Whichever client containerd has,
// the error says which command brings the image back, and it does. What uses the image
// has to go before.
func TestErrorOfALostLayerNamesTheFix(t *testing.T) {
	t.Run("ctr", func(t *testing.T) {
		onlyOnce(t, olderReleases, aCase)
		base := pool.NewBase(t)
		d := harness.StartDaemon(t, base)
		c := startContainerd(t, d)
		_, ref := serveImage(t, writeTestImage(t))
		c.pull(t, "default", ref)
		c.ctr(t, "containers", "create", "--snapshotter", "zfstpl", ref, "uses")
		c.offline(t, d, func() { destroyTemplates(t, d) })

		out, err := c.tryRun(ref)
		require.Error(t, err)
		assert.Contains(t, out, "ctr images rm --sync")
		c.ctr(t, "images", "rm", "--sync", ref)
		out, err = c.try("images", "pull", "--plain-http", "--snapshotter", "zfstpl", ref)
		t.Logf("pull: %v %s", err, out)
		_, err = c.tryRun(ref)
		require.Error(t, err, "a container uses the layers still")
		c.ctr(t, "containers", "rm", "uses")
		c.ctr(t, "images", "rm", "--sync", ref)
		c.pull(t, "default", ref)
		assert.Contains(t, c.lists(t, "default", ref), "/data/added\n")
		c.forget(t, d, "default", ref)
	})
	t.Run("CRI", func(t *testing.T) {
		base := pool.NewBase(t)
		d := harness.StartDaemon(t, base)
		archive := writeTestImage(t)
		_, ref := serveImage(t, archive)
		_, sandbox := serveSandbox(t, archive)
		c := startDefaultContainerd(t, d, forKubernetes(sandbox))
		k := startKubelet(t, c)
		k.pull(t, ref)
		k.pull(t, sandbox)
		c.offline(t, d, func() { destroyTemplates(t, d) })

		_, err := k.runtime.RunPodSandbox(k.ctx, &cri.RunPodSandboxRequest{Config: k.sandbox})
		want := "already exists" // containerd's own words: it does not ask the snapshotter
		if containerd17(t) {
			want = "crictl rmi"
		}
		require.ErrorContains(t, err, want)
		k.removeImage(t, ref)
		k.removeImage(t, sandbox)
		k.pull(t, ref)
		pod := k.runPod(t)
		made := k.run(t, pod, ref, 0, false)
		assert.Contains(t, k.exec(t, made, "/app", "ls"), "/data/added\n")
		k.kill(t, made)
		k.endPod(t, pod)
		k.removeImage(t, ref)
		k.removeImage(t, sandbox)
		c.collect(t, "k8s.io")
	})
	t.Run("Docker", func(t *testing.T) {
		onlyOnce(t, newerReleases, aCase)
		base := pool.NewBase(t)
		d := harness.StartDaemon(t, base)
		c := startContainerd(t, d)
		_, ref := serveImage(t, writeTestImage(t))
		docker := startDocker(t, c)
		docker.run(t, "pull", "--quiet", ref)
		c.offline(t, d, func() { destroyTemplates(t, d) })

		out, err := exec.Command("docker", "--host", docker.address, "run", "--rm", "--network", "none", ref, "ls").CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), "docker rmi")
		docker.run(t, "rmi", ref)
		docker.run(t, "pull", "--quiet", ref)
		assert.Contains(t, docker.run(t, "run", "--rm", "--network", "none", ref, "ls"), "/data/added\n")
		docker.run(t, "rmi", ref)
		c.collect(t, "moby")
	})
}
