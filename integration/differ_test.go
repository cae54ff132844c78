package integration

import (
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/continuity/fs/fstest"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/randtree"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/integration/tied"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

var (
	diffSeed   = flag.Uint64("diff.seed", rand.Uint64(), "of the random trees that layers are made of")
	diffRounds = flag.Int("diff.rounds", 100, "how many random trees layers are made of; 'make test' does so on two releases")
)

// treesAtOnce is how many random trees share a snapshot: to make one takes
// longer than to fill it.
const treesAtOnce = 20

// Whatever programs do to many trees, the layer of it makes the same of what was
// before, while the trees are still mounted; and the layer is the same, to the
// byte, whether ZFS says what changed or everything is compared.
func TestLayersOfRandomTreesReproduceThem(t *testing.T) {
	t.Parallel()
	t.Logf("-diff.seed %d", *diffSeed)
	d := differ.New(t, pool.NewBase(t))
	for first := 0; first < *diffRounds; first += treesAtOnce {
		d.RequireTreesReproduced(t, *diffSeed+uint64(first), treesAtOnce, 20, 30)
		harness.RemoveAll(t, d.Snapshotter)
		require.NoError(t, d.Snapshotter.Cleanup(d.Context))
	}
	d.RequireNothingPending(t, 0)
}

// The same for few changes in a tree that is large beside them, where it is
// looked at nothing else.
func TestLayersOfFewChangesReproduceThem(t *testing.T) {
	onlyOnce(t, newerReleases, onlyFiles)
	t.Parallel()
	t.Logf("-diff.seed %d", *diffSeed)
	d := differ.New(t, pool.NewBase(t))
	large := d.Template(t, "", func(root string) {
		for i := range 15 {
			dir := filepath.Join(root, fmt.Sprintf("dir%02d", i))
			harness.Mkdirs(t, dir)
			for j := range 40 {
				require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(j)), []byte(dir), 0o644))
			}
		}
		tree := randtree.New(filepath.Join(root, "dir00"), *diffSeed)
		require.NoError(t, tree.Grow(40))
	})
	rounds := max(10, *diffRounds/10)
	for i := range rounds {
		_, mounts := d.Prepare(t, large)
		var layer []byte
		var want map[string]string
		var tree *randtree.Tree
		harness.Mounted(t, mounts, func(root string) {
			tree = randtree.New(filepath.Join(root, fmt.Sprintf("dir%02d", i%3)), *diffSeed+uint64(i))
			require.NoError(t, tree.Edit(1+i%3))
			layer, want = d.Layers(t, d.View(t, large), mounts), differ.ReadTree(t, root)
			require.NoError(t, tree.Close())
		})
		d.Applied(t, large, layer, func(root string) {
			if lines := randtree.Differences(want, differ.ReadTree(t, root)); len(lines) > 0 {
				t.Errorf("seed %d:\n%s\nafter\n%s", *diffSeed+uint64(i), strings.Join(lines, "\n"), strings.Join(tree.Done, "\n"))
			}
		})
	}
	assert.NotZero(t, d.Asked.Load(), "no path was asked for")
	harness.RemoveAll(t, d.Snapshotter)
}

// The same where attributes are objects of their own, as ZFS keeps them without
// xattr=sa: a change to one is a change to an object that no directory names.
func TestLayersHaveAttributesOfDirectories(t *testing.T) {
	t.Parallel()
	t.Logf("-diff.seed %d", *diffSeed)
	d := differ.New(t, pool.NewBase(t))
	out, err := exec.Command("zfs", "set", "xattr=dir", d.Base.String()).CombinedOutput()
	require.NoError(t, err, "%s", out)
	d.RequireTreesReproduced(t, *diffSeed, treesAtOnce, 20, 30)
	file := d.Template(t, "", func(root string) {
		for i := range 200 {
			path := filepath.Join(root, fmt.Sprint(i))
			require.NoError(t, os.WriteFile(path, nil, 0o644))
			require.NoError(t, unix.Lsetxattr(path, "user.a", []byte("before"), 0))
		}
	})
	for _, count := range []int{1, 200} { // few are asked for one by one, many are not
		_, mounts := d.Prepare(t, file)
		harness.Mounted(t, mounts, func(root string) {
			for i := range count {
				require.NoError(t, unix.Lsetxattr(filepath.Join(root, fmt.Sprint(i)), "user.a", []byte("after!"), 0))
			}
		})
		assert.Len(t, differ.TarNames(t, d.Layers(t, d.View(t, file), mounts)), count)
	}
	harness.RemoveAll(t, d.Snapshotter)
}

// containerd's own tests of differs.
func TestDifferPassesContainerdsSuite(t *testing.T) {
	onlyOnce(t, newerReleases, onlyFiles)
	eachClient(t, func(t *testing.T, base *testpool.Base) {
		if testing.Short() && base.Choice == zfs.Command {
			t.Skip("with the command client in 'make test-long' only")
		}
		fstest.FSSuite(t, &suiteApplier{t: t, d: differ.New(t, base)})
	})
}

// suiteApplier makes each change on the last one's result, of which then the
// layer is made and applied to a second chain of snapshots.
type suiteApplier struct {
	t            *testing.T
	d            *differ.Rig
	first, again string
}

func (s *suiteApplier) TestContext(ctx context.Context) (context.Context, func(), error) {
	s.first, s.again = "", ""
	return ctx, func() { harness.RemoveAll(s.t, s.d.Snapshotter) }, nil
}

func (s *suiteApplier) Apply(_ context.Context, a fstest.Applier) (string, func(), error) {
	d, t := s.d, s.t
	before := d.View(t, s.first)
	s.first = d.Template(t, s.first, func(root string) { require.NoError(t, a.Apply(root)) })
	desc, err := d.Compare(d.Context, before, d.View(t, s.first), diff.WithMediaType(ocispec.MediaTypeImageLayerZstd))
	require.NoError(t, err)
	key, mounts := d.Prepare(t, s.again)
	_, err = d.Apply(d.Context, desc, mounts)
	require.NoError(t, err)
	s.again = "again-" + key
	require.NoError(t, d.Snapshotter.Commit(d.Context, s.again, key))
	dir := t.TempDir()
	require.NoError(t, mount.All(d.View(t, s.again), dir))
	return dir, func() { require.NoError(t, mount.UnmountAll(dir, 0)) }, nil
}

// What a comparison stores is a layer as containerd's own would be: with its
// digest without compression, under a lease that ends, once.
func TestCompareStoresALayer(t *testing.T) {
	t.Parallel()
	d := differ.New(t, pool.NewBase(t))
	parent := d.Template(t, "", func(root string) { require.NoError(t, os.WriteFile(filepath.Join(root, "old"), []byte("old"), 0o644)) })
	_, mounts := d.Prepare(t, parent)
	harness.Mounted(t, mounts, func(root string) { require.NoError(t, os.WriteFile(filepath.Join(root, "new"), []byte("new"), 0o644)) })
	view := d.View(t, parent)
	epoch := time.Unix(1_000_000_000, 0)
	var plain ocispec.Descriptor
	for i, media := range []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, ""} {
		desc, err := d.Compare(d.Context, view, mounts, diff.WithMediaType(media), diff.WithSourceDateEpoch(&epoch),
			diff.WithLabels(map[string]string{"mine": "too"}))
		require.NoError(t, err)
		again, err := d.Compare(d.Context, view, mounts, diff.WithMediaType(media), diff.WithSourceDateEpoch(&epoch), diff.WithReference("again"))
		require.NoError(t, err)
		assert.Equal(t, desc, again, "the same layer, to the byte")
		if i == 0 {
			plain = desc
			assert.Equal(t, []string{"new"}, differ.TarNames(t, d.Blob(t, desc)))
		}
		info, err := d.Contents.Store.Info(d.Context, desc.Digest)
		require.NoError(t, err)
		assert.Equal(t, plain.Digest.String(), info.Labels[labels.LabelUncompressed], media)
		assert.Equal(t, "too", info.Labels["mine"])
		d.RequireNothingPending(t, 2*(i+1))
	}
}

// Mounts that are not ours and unknown media types are for the next
// differ that containerd has.
func TestDifferLeavesUnknownMountsAndTypesToOthers(t *testing.T) {
	t.Parallel()
	d := differ.New(t, pool.NewBase(t))
	_, ours := d.Prepare(t, "")
	view := d.View(t, "")
	for what, c := range map[string]struct {
		lower, upper []mount.Mount
		media        string
	}{
		"another's dataset":  {view, []mount.Mount{{Type: "zfs", Source: pool.Name}}, ""},
		"the base":           {view, []mount.Mount{{Type: "zfs", Source: d.Base.String()}}, ""},
		"a bind mount":       {view, []mount.Mount{{Type: "bind", Source: "/"}}, ""},
		"an overlay":         {[]mount.Mount{{Type: "overlay"}}, ours, ""},
		"two mounts":         {view, append(ours, ours...), ""},
		"no mount":           {view, nil, ""},
		"an odd media type":  {view, ours, "text/plain"},
		"another snapshot":   {view, []mount.Mount{{Type: "zfs", Source: ours[0].Source + "@extracted"}}, ""},
		"a name that climbs": {view, []mount.Mount{{Type: "zfs", Source: d.Base.Runtime() + "/../storage/x"}}, ""},
	} {
		_, err := d.Compare(d.Context, c.lower, c.upper, diff.WithMediaType(c.media))
		assert.True(t, errdefs.IsNotImplemented(err), "%s: %v", what, err)
		_, err = d.Apply(d.Context, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, c.upper)
		if c.media == "" && what != "an overlay" {
			assert.True(t, errdefs.IsNotImplemented(err), "apply: %s: %v", what, err)
		}
	}
	_, err := d.Apply(d.Context, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, view)
	assert.True(t, errdefs.IsNotImplemented(err), "a view is not written to: %v", err)
	_, err = d.Compare(context.Background(), view, ours)
	assert.True(t, errdefs.IsNotImplemented(err), "no namespace, and a key that names none: %v", err)
	d.RequireNothingPending(t, 0)
}

// Nothing at all is a lower side too; and what is no ancestor is compared as
// well, if not as fast.
func TestAnyLowerSideCanBeCompared(t *testing.T) {
	t.Parallel()
	d := differ.New(t, pool.NewBase(t))
	write := func(names ...string) func(root string) {
		return func(root string) {
			for _, name := range names {
				require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(name), 0o644))
			}
		}
	}
	a := d.Template(t, "", write("a"))
	b := d.Template(t, a, write("b"))
	other := d.Template(t, "", write("c"))
	assert.Equal(t, []string{"a", "b"}, differ.TarNames(t, d.Layers(t, nil, d.View(t, b))), "nothing")
	assert.Equal(t, []string{"a", "b"}, differ.TarNames(t, d.Layers(t, d.View(t, ""), d.View(t, b))), "a view of nothing")
	assert.Equal(t, []string{"b"}, differ.TarNames(t, d.Layers(t, d.View(t, a), d.View(t, b))), "the parent")
	assert.Equal(t, []string{".wh.b"}, differ.TarNames(t, d.Layers(t, d.View(t, b), d.View(t, a))), "a child")
	assert.Equal(t, []string{".wh.c", "a", "b"}, differ.TarNames(t, d.Layers(t, d.View(t, other), d.View(t, b))), "no ancestor")
	assert.Empty(t, differ.TarNames(t, d.Layers(t, d.View(t, b), d.View(t, b))), "the same")
}

// What programs wrote through memory is in the layer, without their end.
func TestLayerHasWritesThroughMmap(t *testing.T) {
	t.Parallel()
	d := differ.New(t, pool.NewBase(t))
	_, mounts := d.Prepare(t, "")
	harness.Mounted(t, mounts, func(root string) {
		f, err := os.Create(filepath.Join(root, "mapped"))
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, f.Truncate(4096))
		unix.Sync()
		memory, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.NoError(t, err)
		copy(memory, "through memory")
		assert.Contains(t, string(d.Layers(t, d.View(t, ""), mounts)), "through memory")
		require.NoError(t, unix.Munmap(memory))
	})
}

// Names that no layer can hold end a comparison, which then leaves nothing; so
// does its caller's end, soon.
func TestFailedComparisonsLeaveNothing(t *testing.T) {
	t.Parallel()
	d := differ.New(t, pool.NewBase(t))
	view := d.View(t, "")
	_, bad := d.Prepare(t, "")
	harness.Mounted(t, bad, func(root string) { require.NoError(t, os.WriteFile(filepath.Join(root, ".wh.etc"), nil, 0o644)) })
	_, err := d.Compare(d.Context, view, bad)
	assert.True(t, errdefs.IsFailedPrecondition(err), "%v", err)
	assert.ErrorContains(t, err, ".wh.etc")
	d.RequireNothingPending(t, 0)

	_, large := d.Prepare(t, "")
	harness.Mounted(t, large, func(root string) {
		f, err := os.Create(filepath.Join(root, "large"))
		require.NoError(t, err)
		require.NoError(t, errors.Join(f.Truncate(8<<30), f.Close()))
	})
	ctx, cancel := context.WithCancel(d.Context)
	time.AfterFunc(500*time.Millisecond, cancel)
	_, err = d.Compare(ctx, view, large)
	assert.ErrorIs(t, err, context.Canceled)
	d.RequireNothingPending(t, 0)
}

// zfstpl diff shows a person what a container changed, while it runs.
func TestDiffCommandShowsChangesOfARunningContainer(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	d := differ.New(t, base)
	parent := d.Template(t, "", func(root string) {
		harness.Mkdirs(t, filepath.Join(root, "etc"))
		for _, name := range []string{"changed", "removed"} {
			require.NoError(t, os.WriteFile(filepath.Join(root, "etc", name), nil, 0o644))
		}
	})
	key, mounts := d.Prepare(t, parent)
	harness.Mounted(t, mounts, func(root string) {
		require.NoError(t, os.WriteFile(filepath.Join(root, "etc/changed"), []byte("now"), 0o644))
		require.NoError(t, os.Remove(filepath.Join(root, "etc/removed")))
		require.NoError(t, os.WriteFile(filepath.Join(root, "etc/with\nline"), nil, 0o644))
		stdout, _, err := harness.RunCommand(t, "zfstpl", "diff", "--dataset", base.String(), key)
		require.NoError(t, err)
		assert.Equal(t, "M /etc\nD /etc/removed\nM /etc/changed\nA \"/etc/with\\nline\"\n", stdout)
		stdout, _, err = harness.RunCommand(t, "zfstpl", "diff", "--dataset", base.String(), "--format", "json", mounts[0].Source)
		require.NoError(t, err)
		assert.Contains(t, stdout, `{"kind":"modified","path":"/etc/changed","type":"file","size":3}`)
		stdout, _, err = harness.RunCommand(t, "zfstpl", "diff", "--dataset", base.String(), "--format", "tar", key)
		require.NoError(t, err)
		assert.Equal(t, d.Layers(t, d.View(t, parent), mounts), []byte(stdout))
	})
	for format, reader := range map[string]func(io.Reader) (io.Reader, error){
		"tar+gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"tar+zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	} {
		stdout, _, err := harness.RunCommand(t, "zfstpl", "diff", "--dataset", base.String(), "--format", format, key)
		require.NoError(t, err)
		r, err := reader(strings.NewReader(stdout))
		require.NoError(t, err)
		layer, err := io.ReadAll(r)
		require.NoError(t, err)
		assert.Equal(t, d.Layers(t, d.View(t, parent), mounts), layer, format)
	}

	// A name that is no UTF-8, and an ancestor further down.
	require.NoError(t, d.Snapshotter.Commit(d.Context, "diff-command", key))
	grandchild, mounts := d.Prepare(t, "diff-command")
	harness.Mounted(t, mounts, func(root string) { require.NoError(t, harness.Touch(root, "\xff")) })
	stdout, _, err := harness.RunCommand(t, "zfstpl", "diff", "--dataset", base.String(), "--format", "json", grandchild)
	require.NoError(t, err)
	assert.Equal(t, `{"kind":"modified","path":"/","type":"directory"}`+"\n"+
		`{"kind":"added","path":"/\ufffd","type":"file","raw":"L/8="}`+"\n", stdout)
	stdout, _, err = harness.RunCommand(t, "zfstpl", "diff", "--dataset", base.String(), "--parent", parent, grandchild)
	require.NoError(t, err)
	assert.Equal(t, "M /\nM /etc\nD /etc/removed\nM /etc/changed\nA \"/etc/with\\nline\"\nA \"/\\xff\"\n", stdout)

	_, stderr, err := harness.RunCommand(t, "zfstpl", "diff", "--dataset", base.String(), "missing")
	require.Error(t, err)
	assert.Contains(t, stderr, `snapshot "missing": not found`)
}

// The reader of a diff may stop early or hang up: nothing is left on the
// container.
func TestDiffWithoutAReaderLeavesNothing(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	d := differ.New(t, base)
	key, mounts := d.Prepare(t, "")
	harness.Mounted(t, mounts, func(root string) {
		noise := make([]byte, 1<<20)
		_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // it returns no error
		require.NoError(t, os.WriteFile(filepath.Join(root, "big"), noise, 0o644))
	})
	for what, end := range map[string]func(*exec.Cmd) error{
		"the pipe is closed": func(*exec.Cmd) error { return nil },
		"hung up":            func(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGHUP) },
	} {
		cmd := exec.Command(harness.Binary(t, "zfstpl"), "diff", "--dataset", base.String(), "--format", "tar", key)
		var stderr harness.ProgramLog
		cmd.Stderr = stderr.Output(t)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, tied.Start(cmd))
		_, err = out.Read(make([]byte, 1))
		require.NoError(t, err, what)
		require.NoError(t, end(cmd))
		require.NoError(t, out.Close())
		var exit *exec.ExitError
		require.ErrorAs(t, cmd.Wait(), &exit, what)
		assert.Equal(t, 1, exit.ExitCode(), "%s: %s", what, stderr.String())
		found, err := base.Client.List(d.Context, mounts[0].Source)
		require.NoError(t, err)
		assert.Empty(t, found[0].Snapshots, what)
	}
}

// A comparison of a container that is killed leaves a snapshot. The next start
// takes it away, and so does the end of its container.
func TestKilledComparisonIsRemovedByTheNextStart(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	d := differ.New(t, base)
	key, mounts := d.Prepare(t, "")
	harness.Mounted(t, mounts, func(root string) {
		for i := range 100 {
			require.NoError(t, os.WriteFile(filepath.Join(root, fmt.Sprint(i)), make([]byte, 64<<10), 0o644))
		}
	})
	d.KillComparison(t, mounts[0].Source)
	d.Restart(t)
	assert.Equal(t, 0, d.CountSnapshots(t), "after a start")

	d.KillComparison(t, mounts[0].Source)
	require.NoError(t, d.Snapshotter.Remove(d.Context, key))
	require.NoError(t, d.Snapshotter.Cleanup(d.Context))
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}
