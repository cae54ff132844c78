package integration

import (
	"archive/tar"
	"bytes"
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

func tarNames(t testing.TB, layer []byte) (names []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(layer))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		require.NoError(t, err)
		names = append(names, h.Name)
	}
}

// treesAtOnce is how many random trees share a snapshot: to make one takes
// longer than to fill it.
const treesAtOnce = 20

// Whatever programs do to many trees, the layer of it makes the same of what was
// before, while the trees are still mounted; and the layer is the same, to the
// byte, whether ZFS says what changed or everything is compared.
func TestLayersOfRandomTreesReproduceThem(t *testing.T) {
	t.Parallel()
	t.Logf("-diff.seed %d", *diffSeed)
	d := newDiffer(t, pool.NewBase(t))
	for first := 0; first < *diffRounds; first += treesAtOnce {
		d.round(t, *diffSeed+uint64(first), treesAtOnce, 20, 30)
		harness.RemoveAll(t, d.sn)
		require.NoError(t, d.sn.Cleanup(d.ctx))
	}
	d.requireNothingUnderWay(t, 0)
}

// The same for few changes in a tree that is large beside them, where it is
// looked at nothing else.
func TestLayersOfFewChangesReproduceThem(t *testing.T) {
	onlyOnce(t, newerReleases, onlyFiles)
	t.Parallel()
	t.Logf("-diff.seed %d", *diffSeed)
	d := newDiffer(t, pool.NewBase(t))
	large := d.template(t, "", func(root string) {
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
		_, mounts := d.prepare(t, large)
		var layer []byte
		var want map[string]string
		var tree *randtree.Tree
		d.mounted(t, mounts, func(root string) {
			tree = randtree.New(filepath.Join(root, fmt.Sprintf("dir%02d", i%3)), *diffSeed+uint64(i))
			require.NoError(t, tree.Edit(1+i%3))
			layer, want = d.layers(t, d.viewed(t, large), mounts), readTree(t, root)
			require.NoError(t, tree.Close())
		})
		d.applied(t, large, layer, func(root string) {
			if lines := randtree.Differences(want, readTree(t, root)); len(lines) > 0 {
				t.Errorf("seed %d:\n%s\nafter\n%s", *diffSeed+uint64(i), strings.Join(lines, "\n"), strings.Join(tree.Done, "\n"))
			}
		})
	}
	assert.NotZero(t, d.asked.Load(), "no path was asked for")
	harness.RemoveAll(t, d.sn)
}

// The same where attributes are objects of their own, as ZFS keeps them without
// xattr=sa: a change to one is a change to an object that no directory names.
func TestLayersHaveAttributesOfDirectories(t *testing.T) {
	t.Parallel()
	t.Logf("-diff.seed %d", *diffSeed)
	d := newDiffer(t, pool.NewBase(t))
	out, err := exec.Command("zfs", "set", "xattr=dir", d.base.String()).CombinedOutput()
	require.NoError(t, err, "%s", out)
	d.round(t, *diffSeed, treesAtOnce, 20, 30)
	file := d.template(t, "", func(root string) {
		for i := range 200 {
			path := filepath.Join(root, fmt.Sprint(i))
			require.NoError(t, os.WriteFile(path, nil, 0o644))
			require.NoError(t, unix.Lsetxattr(path, "user.a", []byte("before"), 0))
		}
	})
	for _, count := range []int{1, 200} { // few are asked for one by one, many are not
		_, mounts := d.prepare(t, file)
		d.mounted(t, mounts, func(root string) {
			for i := range count {
				require.NoError(t, unix.Lsetxattr(filepath.Join(root, fmt.Sprint(i)), "user.a", []byte("after!"), 0))
			}
		})
		assert.Len(t, tarNames(t, d.layers(t, d.viewed(t, file), mounts)), count)
	}
	harness.RemoveAll(t, d.sn)
}

// round makes some trees, changes them, and makes the changes again of a layer.
func (d *differ) round(t *testing.T, seed uint64, count, grow, edit int) {
	t.Helper()
	trees := make([]*randtree.Tree, count)
	lower := d.template(t, "", func(root string) {
		for i := range trees {
			dir := filepath.Join(root, fmt.Sprint(i))
			harness.Mkdirs(t, dir)
			trees[i] = randtree.New(dir, seed+uint64(i))
			require.NoError(t, trees[i].Grow(grow))
		}
	})
	_, mounts := d.prepare(t, lower)
	var layer []byte
	want := make([]map[string]string, count)
	d.mounted(t, mounts, func(root string) {
		for i, tree := range trees {
			dir := filepath.Join(root, fmt.Sprint(i))
			tree.At(dir)
			require.NoError(t, tree.Edit(edit))
			want[i] = readTree(t, dir)
		}
		layer = d.layers(t, d.viewed(t, lower), mounts)
		for _, tree := range trees {
			require.NoError(t, tree.Close())
		}
	})
	d.applied(t, lower, layer, func(root string) {
		for i, tree := range trees {
			lines := randtree.Differences(want[i], readTree(t, filepath.Join(root, fmt.Sprint(i))))
			if len(lines) > 0 {
				t.Errorf("seed %d:\n%s\nafter\n%s", seed+uint64(i), strings.Join(lines, "\n"), strings.Join(tree.Done, "\n"))
			}
		}
	})
}

func readTree(t testing.TB, root string) map[string]string {
	t.Helper()
	tree, err := randtree.Read(root)
	require.NoError(t, err)
	return tree
}

// containerd's own tests of differs.
func TestDifferPassesContainerdsSuite(t *testing.T) {
	eachClient(t, func(t *testing.T, base *testpool.Base) {
		if testing.Short() && base.Choice == zfs.Command {
			t.Skip("with the command client in 'make test-long' only")
		}
		fstest.FSSuite(t, &suiteApplier{t: t, d: newDiffer(t, base)})
	})
}

// suiteApplier makes each change on the last one's result, of which then the
// layer is made and applied to a second chain of snapshots.
type suiteApplier struct {
	t            *testing.T
	d            *differ
	first, again string
}

func (s *suiteApplier) TestContext(ctx context.Context) (context.Context, func(), error) {
	s.first, s.again = "", ""
	return ctx, func() { harness.RemoveAll(s.t, s.d.sn) }, nil
}

func (s *suiteApplier) Apply(_ context.Context, a fstest.Applier) (string, func(), error) {
	d, t := s.d, s.t
	before := d.viewed(t, s.first)
	s.first = d.template(t, s.first, func(root string) { require.NoError(t, a.Apply(root)) })
	desc, err := d.Compare(d.ctx, before, d.viewed(t, s.first), diff.WithMediaType(ocispec.MediaTypeImageLayerZstd))
	require.NoError(t, err)
	key, mounts := d.prepare(t, s.again)
	_, err = d.Apply(d.ctx, desc, mounts)
	require.NoError(t, err)
	s.again = "again-" + key
	require.NoError(t, d.sn.Commit(d.ctx, s.again, key))
	dir := t.TempDir()
	require.NoError(t, mount.All(d.viewed(t, s.again), dir))
	return dir, func() { require.NoError(t, mount.UnmountAll(dir, 0)) }, nil
}

// What a comparison stores is a layer as containerd's own would be: with its
// digest without compression, under a lease that ends, once.
func TestCompareStoresALayer(t *testing.T) {
	t.Parallel()
	d := newDiffer(t, pool.NewBase(t))
	parent := d.template(t, "", func(root string) { require.NoError(t, os.WriteFile(filepath.Join(root, "old"), []byte("old"), 0o644)) })
	_, mounts := d.prepare(t, parent)
	d.mounted(t, mounts, func(root string) { require.NoError(t, os.WriteFile(filepath.Join(root, "new"), []byte("new"), 0o644)) })
	view := d.viewed(t, parent)
	epoch := time.Unix(1_000_000_000, 0)
	var plain ocispec.Descriptor
	for i, media := range []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, ""} {
		desc, err := d.Compare(d.ctx, view, mounts, diff.WithMediaType(media), diff.WithSourceDateEpoch(&epoch),
			diff.WithLabels(map[string]string{"mine": "too"}))
		require.NoError(t, err)
		again, err := d.Compare(d.ctx, view, mounts, diff.WithMediaType(media), diff.WithSourceDateEpoch(&epoch), diff.WithReference("again"))
		require.NoError(t, err)
		assert.Equal(t, desc, again, "the same layer, to the byte")
		if i == 0 {
			plain = desc
			assert.Equal(t, []string{"new"}, tarNames(t, d.blob(t, desc)))
		}
		info, err := d.contents.Store.Info(d.ctx, desc.Digest)
		require.NoError(t, err)
		assert.Equal(t, plain.Digest.String(), info.Labels[labels.LabelUncompressed], media)
		assert.Equal(t, "too", info.Labels["mine"])
		d.requireNothingUnderWay(t, 2*(i+1))
	}
}

// Mounts that are not ours and unknown media types are for the next
// differ that containerd has.
func TestDifferLeavesUnknownMountsAndTypesToOthers(t *testing.T) {
	t.Parallel()
	d := newDiffer(t, pool.NewBase(t))
	_, ours := d.prepare(t, "")
	view := d.viewed(t, "")
	for what, c := range map[string]struct {
		lower, upper []mount.Mount
		media        string
	}{
		"another's dataset":  {view, []mount.Mount{{Type: "zfs", Source: pool.Name}}, ""},
		"the base":           {view, []mount.Mount{{Type: "zfs", Source: d.base.String()}}, ""},
		"a bind mount":       {view, []mount.Mount{{Type: "bind", Source: "/"}}, ""},
		"an overlay":         {[]mount.Mount{{Type: "overlay"}}, ours, ""},
		"two mounts":         {view, append(ours, ours...), ""},
		"no mount":           {view, nil, ""},
		"an odd media type":  {view, ours, "text/plain"},
		"another snapshot":   {view, []mount.Mount{{Type: "zfs", Source: ours[0].Source + "@extracted"}}, ""},
		"a name that climbs": {view, []mount.Mount{{Type: "zfs", Source: d.base.Runtime() + "/../storage/x"}}, ""},
	} {
		_, err := d.Compare(d.ctx, c.lower, c.upper, diff.WithMediaType(c.media))
		assert.True(t, errdefs.IsNotImplemented(err), "%s: %v", what, err)
		_, err = d.Apply(d.ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, c.upper)
		if c.media == "" && what != "an overlay" {
			assert.True(t, errdefs.IsNotImplemented(err), "apply: %s: %v", what, err)
		}
	}
	_, err := d.Apply(d.ctx, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer}, view)
	assert.True(t, errdefs.IsNotImplemented(err), "a view is not written to: %v", err)
	_, err = d.Compare(context.Background(), view, ours)
	assert.True(t, errdefs.IsNotImplemented(err), "no namespace, and a key that names none: %v", err)
	d.requireNothingUnderWay(t, 0)
}

// Nothing at all is a lower side too; and what is no ancestor is compared as
// well, if not as fast.
func TestAnyLowerSideCanBeCompared(t *testing.T) {
	t.Parallel()
	d := newDiffer(t, pool.NewBase(t))
	write := func(names ...string) func(root string) {
		return func(root string) {
			for _, name := range names {
				require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(name), 0o644))
			}
		}
	}
	a := d.template(t, "", write("a"))
	b := d.template(t, a, write("b"))
	other := d.template(t, "", write("c"))
	assert.Equal(t, []string{"a", "b"}, tarNames(t, d.layers(t, nil, d.viewed(t, b))), "nothing")
	assert.Equal(t, []string{"a", "b"}, tarNames(t, d.layers(t, d.viewed(t, ""), d.viewed(t, b))), "a view of nothing")
	assert.Equal(t, []string{"b"}, tarNames(t, d.layers(t, d.viewed(t, a), d.viewed(t, b))), "the parent")
	assert.Equal(t, []string{".wh.b"}, tarNames(t, d.layers(t, d.viewed(t, b), d.viewed(t, a))), "a child")
	assert.Equal(t, []string{".wh.c", "a", "b"}, tarNames(t, d.layers(t, d.viewed(t, other), d.viewed(t, b))), "no ancestor")
	assert.Empty(t, tarNames(t, d.layers(t, d.viewed(t, b), d.viewed(t, b))), "the same")
}

// What programs wrote through memory is in the layer, without their end.
func TestLayerHasWritesThroughMmap(t *testing.T) {
	t.Parallel()
	d := newDiffer(t, pool.NewBase(t))
	_, mounts := d.prepare(t, "")
	d.mounted(t, mounts, func(root string) {
		f, err := os.Create(filepath.Join(root, "mapped"))
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, f.Truncate(4096))
		unix.Sync()
		memory, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.NoError(t, err)
		copy(memory, "through memory")
		assert.Contains(t, string(d.layers(t, d.viewed(t, ""), mounts)), "through memory")
		require.NoError(t, unix.Munmap(memory))
	})
}

// Names that no layer can hold end a comparison, which then leaves nothing; so
// does its caller's end, soon.
func TestFailedComparisonsLeaveNothing(t *testing.T) {
	t.Parallel()
	d := newDiffer(t, pool.NewBase(t))
	view := d.viewed(t, "")
	_, bad := d.prepare(t, "")
	d.mounted(t, bad, func(root string) { require.NoError(t, os.WriteFile(filepath.Join(root, ".wh.etc"), nil, 0o644)) })
	_, err := d.Compare(d.ctx, view, bad)
	assert.True(t, errdefs.IsFailedPrecondition(err), "%v", err)
	assert.ErrorContains(t, err, ".wh.etc")
	d.requireNothingUnderWay(t, 0)

	_, large := d.prepare(t, "")
	d.mounted(t, large, func(root string) {
		f, err := os.Create(filepath.Join(root, "large"))
		require.NoError(t, err)
		require.NoError(t, errors.Join(f.Truncate(8<<30), f.Close()))
	})
	ctx, cancel := context.WithCancel(d.ctx)
	time.AfterFunc(500*time.Millisecond, cancel)
	_, err = d.Compare(ctx, view, large)
	assert.ErrorIs(t, err, context.Canceled)
	d.requireNothingUnderWay(t, 0)
}

// zfstpl diff shows a person what a container changed, while it runs.
func TestDiffCommandShowsChangesOfARunningContainer(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	d := newDiffer(t, base)
	parent := d.template(t, "", func(root string) {
		harness.Mkdirs(t, filepath.Join(root, "etc"))
		for _, name := range []string{"changed", "removed"} {
			require.NoError(t, os.WriteFile(filepath.Join(root, "etc", name), nil, 0o644))
		}
	})
	key, mounts := d.prepare(t, parent)
	d.mounted(t, mounts, func(root string) {
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
		assert.Equal(t, d.layers(t, d.viewed(t, parent), mounts), []byte(stdout))
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
		assert.Equal(t, d.layers(t, d.viewed(t, parent), mounts), layer, format)
	}

	// A name that is no UTF-8, and an ancestor further down.
	require.NoError(t, d.sn.Commit(d.ctx, "diff-command", key))
	grandchild, mounts := d.prepare(t, "diff-command")
	d.mounted(t, mounts, func(root string) { require.NoError(t, harness.Touch(root, "\xff")) })
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
	d := newDiffer(t, base)
	key, mounts := d.prepare(t, "")
	d.mounted(t, mounts, func(root string) {
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
		found, err := base.Client.List(d.ctx, mounts[0].Source)
		require.NoError(t, err)
		assert.Empty(t, found[0].Snapshots, what)
	}
}

// A comparison of a container that is killed leaves a snapshot. The next start
// takes it away, and so does the end of its container.
func TestKilledComparisonIsRemovedByTheNextStart(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	d := newDiffer(t, base)
	key, mounts := d.prepare(t, "")
	d.mounted(t, mounts, func(root string) {
		for i := range 100 {
			require.NoError(t, os.WriteFile(filepath.Join(root, fmt.Sprint(i)), make([]byte, 64<<10), 0o644))
		}
	})
	d.killComparison(t, mounts[0].Source)
	d.restart(t)
	assert.Equal(t, 0, d.frozen(t), "after a start")

	d.killComparison(t, mounts[0].Source)
	require.NoError(t, d.sn.Remove(d.ctx, key))
	require.NoError(t, d.sn.Cleanup(d.ctx))
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
}

// killComparison kills a process that compares, in the middle of it.
func (d *differ) killComparison(t testing.TB, runtime string) {
	t.Helper()
	cmd := exec.Command(harness.Binary(t, "zfstpl"), "diff", "--dataset", d.base.String(), "--format", "tar", runtime)
	out, err := cmd.StdoutPipe() // of which no more is read than this
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, 1024))
	require.NoError(t, err)
	require.Equal(t, 1, d.frozen(t))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Equal(t, 1, d.frozen(t), "it is left")
}

// frozen counts the snapshots of comparisons.
func (d *differ) frozen(t testing.TB) (n int) {
	t.Helper()
	for _, s := range d.base.List(t) {
		for _, short := range s.Snapshots {
			if strings.HasPrefix(short, zfs.TemporaryPrefix) {
				n++
			}
		}
	}
	return n
}
