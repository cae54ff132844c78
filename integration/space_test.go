package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/differ"
	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/inspect"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
)

// narrowRoom is what a quota or reservation leaves: an emulated machine is slow to
// fill more, and slower where a quota is near.
const narrowRoom = 10 * harness.MiB

// shortOf leaves some of the places out where time is short.
func shortOf(t testing.TB, what string) {
	t.Helper()
	if testing.Short() && what != "a small pool" && what != "a quota on the base" {
		t.Skip("two places of four where time is short")
	}
}

// isQuota reports whether a place has a quota. See onlyOnce.
func isQuota(place string) bool { return strings.Contains(place, "quota") }

// narrowPlaces are the ways in which a base can have little room. Each makes a
// base, and returns how many bytes can be written there.
var narrowPlaces = map[string]func(t *testing.T) (base *testpool.Base, room int64){
	"a small pool": func(t *testing.T) (*testpool.Base, int64) {
		base := smallPool(t, 64*harness.MiB).NewBase(t)
		return base, available(t, base.String())
	},
	"a quota on the base": func(t *testing.T) (*testpool.Base, int64) {
		base := pool.NewBase(t)
		zfsCommand(t, "set", fmt.Sprintf("quota=%d", narrowRoom), base.String())
		return base, available(t, base.String())
	},
	"a quota above the base": func(t *testing.T) (*testpool.Base, int64) {
		p := smallPool(t, 512*harness.MiB)
		base := p.NewBase(t)
		zfsCommand(t, "set", fmt.Sprintf("quota=%d", narrowRoom), p.Name)
		return base, available(t, base.String())
	},
	"a neighbour's reservation": func(t *testing.T) (*testpool.Base, int64) {
		p := smallPool(t, 512*harness.MiB)
		base := p.NewBase(t)
		zfsCommand(t, "create", "-o", "mountpoint=none", "-o",
			fmt.Sprintf("reservation=%d", available(t, base.String())-narrowRoom), p.Name+"/neighbour")
		return base, available(t, base.String())
	},
}

// smallPool is a pool of a test's own.
func smallPool(t *testing.T, size int64) *testpool.Pool {
	t.Helper()
	p, err := testpool.Create(size)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close(context.Background())) })
	return p
}

func zfsCommand(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("zfs", args...).CombinedOutput()
	require.NoError(t, err, "zfs %v: %s", args, out)
	return string(out)
}

// available is what can still be written, after what was written has settled.
func available(t testing.TB, dataset string) int64 {
	t.Helper()
	zpoolSync(t, dataset)
	var bytes int64
	_, err := fmt.Sscan(zfsCommand(t, "get", "-Hp", "-o", "value", "available", dataset), &bytes)
	require.NoError(t, err)
	return bytes
}

func zpoolSync(t testing.TB, dataset string) {
	t.Helper()
	base, err := layout.ParseBase(dataset)
	require.NoError(t, err)
	out, err := exec.Command("zpool", "sync", base.Pool()).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// attempts is a content store that counts how often layers are read. To look whether
// one can be, at its first byte, is none.
type attempts struct {
	content.Store
	n atomic.Int32
}

func (a *attempts) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	in, err := a.Store.ReaderAt(ctx, desc)
	return &attempt{ReaderAt: in, all: a}, err
}

type attempt struct {
	content.ReaderAt
	all     *attempts
	counted sync.Once
}

func (a *attempt) ReadAt(b []byte, at int64) (int, error) {
	if len(b) > 1 {
		a.counted.Do(func() { a.all.n.Add(1) })
	}
	return a.ReaderAt.ReadAt(b, at)
}

// newNarrow is a differ over a base that has little room.
func newNarrow(t *testing.T, base *testpool.Base) (*differ.Rig, *attempts) {
	t.Helper()
	d := differ.New(t, base)
	counted := &attempts{Store: d.Contents.Store}
	d.Contents.Store = counted
	d.Restart(t)
	return d, counted
}

// The first attempt finds no space, a cached template goes, the second succeeds, and
// the new template is there: in one run, in every place with little room.
func TestLayerFitsAfterAnEviction(t *testing.T) {
	t.Parallel()
	for what, place := range narrowPlaces {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			onlyOnce(t, isQuota(what), aQuota)
			base, room := place(t)
			d, counted := newNarrow(t, base)
			size := room * 6 / 10
			cached, err := d.Pull(t, harness.ChainID(1), d.PushNoise(t, 1, size))
			require.NoError(t, err)
			require.NoError(t, d.Snapshotter.Remove(d.Context, cached))
			require.NoError(t, d.Snapshotter.Cleanup(d.Context))
			require.True(t, d.HasTemplate(t, harness.ChainID(1)), "it is cached")
			require.Less(t, available(t, base.String()), size, "what comes next does not fit beside it")

			counted.n.Store(0)
			name, err := d.Pull(t, harness.ChainID(2), d.PushNoise(t, 2, size))
			require.NoError(t, err)
			assert.EqualValues(t, 2, counted.n.Load(), "attempts")
			assert.False(t, d.HasTemplate(t, harness.ChainID(1)), "the cached one is evicted")
			assert.True(t, d.HasTemplate(t, harness.ChainID(2)), "the new one is there")
			harness.Mounted(t, d.View(t, name), func(root string) { requireNoise(t, root, 2, size) })
			harness.RemoveAll(t, d.Snapshotter)
		})
	}
}

// requireNoise wants the files of a layer of noise, whole.
func requireNoise(t testing.TB, root string, seed byte, size int64) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{seed})
	want := make([]byte, harness.MiB)
	for i := int64(0); i < size; i += harness.MiB {
		part := want[:min(harness.MiB, size-i)]
		_, err := io.ReadFull(random, part)
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(root, "noise-"+strconv.FormatInt(i/harness.MiB, 10)))
		require.NoError(t, err)
		require.Equal(t, len(part), len(got))
		require.True(t, string(part) == string(got), "the content of file %d", i/harness.MiB)
	}
}

// Where nothing can be evicted the second attempt is the last, and nothing is left
// of it.
func TestLayerThatFitsNowhereLeavesNothing(t *testing.T) {
	t.Parallel()
	for what, place := range narrowPlaces {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			shortOf(t, what)
			onlyOnce(t, isQuota(what), aQuota)
			base, room := place(t)
			d, counted := newNarrow(t, base)
			// A template that a container stands on is nothing to evict.
			pinned, err := d.Pull(t, harness.ChainID(1), d.PushNoise(t, 1, room*6/10))
			require.NoError(t, err)
			d.Prepare(t, pinned)
			require.NoError(t, d.Snapshotter.Cleanup(d.Context))
			before := base.Names(t)

			counted.n.Store(0)
			_, err = d.Pull(t, harness.ChainID(2), d.PushNoise(t, 2, room*6/10))
			require.True(t, errdefs.IsResourceExhausted(err), "%v", err)
			t.Log(err)
			assert.ErrorContains(t, err, "tried twice: no cached template could be evicted")
			assert.EqualValues(t, 2, counted.n.Load(), "attempts")
			assert.Equal(t, before, base.Names(t), "nothing is left")
			d.RequireNothingPending(t, 0)
			harness.RemoveAll(t, d.Snapshotter)
			require.NoError(t, d.Snapshotter.Cleanup(d.Context))
			_, err = d.Pull(t, harness.ChainID(2), d.PushNoise(t, 3, room*6/10))
			require.NoError(t, err, "when there is room it fits")
			harness.RemoveAll(t, d.Snapshotter)
		})
	}
}

// stalled is a store that returns no more after so many bytes.
type stalled struct {
	content.Store
	after int64
}

type stalledReader struct {
	content.ReaderAt
	ctx   context.Context
	after int64
}

func (s stalled) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	r, err := s.Store.ReaderAt(ctx, desc)
	return stalledReader{r, ctx, s.after}, err
}

func (r stalledReader) ReadAt(p []byte, at int64) (int, error) {
	if at >= r.after {
		<-r.ctx.Done()
		return 0, context.Cause(r.ctx)
	}
	return r.ReaderAt.ReadAt(p, at)
}

// A layer that meets the end of the space says so, also when the store it comes
// from has stalled: it waits for no caller.
//
// It runs beside no other test: near a bound ZFS ends a txg for every few blocks,
// and beside others each takes seconds. The test distinguishes slow from never.
func TestSpaceErrorDoesNotWaitForTheStore(t *testing.T) {
	for what, place := range narrowPlaces {
		t.Run(what, func(t *testing.T) {
			shortOf(t, what)
			onlyOnce(t, isQuota(what), aQuota)
			base, room := place(t)
			d := differ.New(t, base)
			// Between the end of the space and the stall there is more than is read
			// ahead of what is unpacked.
			desc := d.PushNoise(t, 1, room+64*harness.MiB)
			d.Contents.Store = stalled{d.Contents.Store, room + 16*harness.MiB}
			d.Restart(t)
			ctx, cancel := context.WithTimeoutCause(d.Context, 5*harness.Patience, errors.New("it hangs"))
			defer cancel()
			key, mounts := d.PrepareLayer(t, harness.ChainID(1))
			_, err := d.Apply(ctx, desc, mounts)
			assert.True(t, errdefs.IsResourceExhausted(err), "%v", err)
			assert.NoError(t, ctx.Err())
			require.NoError(t, d.Snapshotter.Remove(d.Context, key))
			require.NoError(t, d.Snapshotter.Cleanup(d.Context))
			assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
		})
	}
}

// What a plan says comes back is what ZFS then says has come back.
func TestEvictionFreesWhatItsPlanSays(t *testing.T) {
	t.Parallel()
	d := differ.New(t, pool.NewBase(t))
	parent, err := d.Pull(t, harness.ChainID(1), d.PushNoise(t, 1, 3*harness.MiB))
	require.NoError(t, err)
	names := []string{parent}
	for i := range byte(3) { // two on the first, one on one of these
		d.Serial++
		key, name := harness.Extraction("test", d.Serial, harness.ChainID(2+int(i))), fmt.Sprintf("test/%d/%s", d.Serial+100, harness.ChainID(2+int(i)))
		mounts, err := d.Snapshotter.Prepare(d.Context, key, names[i/2], harness.WithRef(harness.ChainID(2+int(i))))
		require.NoError(t, err)
		_, err = d.Apply(d.Context, d.PushNoise(t, 2+i, int64(1+i)*harness.MiB), mounts)
		require.NoError(t, err)
		require.NoError(t, d.Snapshotter.Commit(d.Context, name, key, harness.WithRef(harness.ChainID(2+int(i)))))
		names = append(names, name)
	}
	require.NoError(t, d.Snapshotter.Cleanup(d.Context))
	zpoolSync(t, d.Base.String())
	before, err := d.Base.Client.Space(d.Context, d.Base.String())
	require.NoError(t, err)
	harness.RemoveAll(t, d.Snapshotter)
	require.NoError(t, d.Snapshotter.Cleanup(d.Context))
	plan := space.NewPlan(inspect.Nodes(d.Base.Inspect(t)), nil, space.Policy{All: true}, time.Now())
	require.Len(t, plan.Evict, 4)
	require.NoError(t, d.Snapshotter.Close())
	d.Open(t, func(c *snapshotter.Config) { c.CacheKeep = 0 })
	require.NoError(t, d.Snapshotter.Cleanup(d.Context))
	zpoolSync(t, d.Base.String())
	after, err := d.Base.Client.Space(d.Context, d.Base.String())
	require.NoError(t, err)
	assert.Greater(t, plan.Bytes, uint64(8*harness.MiB))
	assert.InDelta(t, before.Used-after.Used, plan.Bytes, 64<<10, "of datasets that hold a few blocks of their own each")
}

// Layers that are unpacked at once, in a place that has room for half of them,
// each end in success or for want of space, and never at the cost of what is in use.
func TestConcurrentLayersInSpaceForHalfSucceedOrFail(t *testing.T) {
	onlyOnce(t, olderReleases, aQuota)
	t.Parallel()
	workers, rounds := []int{8}, 1
	if !testing.Short() {
		workers, rounds = []int{8, 32}, 20
	}
	for _, n := range workers {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			for range rounds {
				manyLayers(t, n)
			}
		})
	}
}

func manyLayers(t *testing.T, n int) {
	const size = harness.MiB
	base := pool.NewBase(t)
	d, counted := newNarrow(t, base)
	used, err := d.Pull(t, harness.ChainID(100), d.PushNoise(t, 100, size))
	require.NoError(t, err)
	d.Prepare(t, used)
	cached, err := d.Pull(t, harness.ChainID(101), d.PushNoise(t, 101, size))
	require.NoError(t, err)
	require.NoError(t, d.Snapshotter.Remove(d.Context, cached))
	require.NoError(t, d.Snapshotter.Cleanup(d.Context))
	zfsCommand(t, "set", fmt.Sprintf("quota=%d", 2*size+int64(n)*size/2), base.String())
	layers := make([]ocispec.Descriptor, n)
	for i := range layers {
		layers[i] = d.PushNoise(t, byte(i), size)
	}
	counted.n.Store(0)
	var each sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		key, mounts := d.PrepareLayer(t, harness.ChainID(i))
		each.Go(func() {
			if _, errs[i] = d.Apply(d.Context, layers[i], mounts); errs[i] == nil {
				errs[i] = d.Snapshotter.Commit(d.Context, fmt.Sprintf("test/%d/%s", 1000+i, harness.ChainID(i)), key, harness.WithRef(harness.ChainID(i)))
			}
		})
	}
	each.Wait()
	fitted := 0
	for i, err := range errs {
		if err == nil {
			fitted++
			assert.True(t, d.HasTemplate(t, harness.ChainID(i)))
			continue
		}
		assert.True(t, errdefs.IsResourceExhausted(err), "%v", err)
		assert.False(t, d.HasTemplate(t, harness.ChainID(i)))
	}
	t.Logf("%d of %d fitted, in %d attempts", fitted, n, counted.n.Load())
	assert.Positive(t, fitted)
	assert.Less(t, fitted, n)
	assert.LessOrEqual(t, counted.n.Load(), int32(2*n), "two attempts each at most")
	assert.True(t, d.HasTemplate(t, harness.ChainID(100)), "it is in use")
	assert.False(t, d.HasTemplate(t, harness.ChainID(101)), "it was cached")
	harness.Mounted(t, d.View(t, used), func(root string) { requireNoise(t, root, 100, size) })
	harness.RemoveAll(t, d.Snapshotter)
	require.NoError(t, d.Snapshotter.Cleanup(d.Context))
	for _, name := range base.Names(t) {
		assert.NotContains(t, name, "/runtime/", "nothing is left of what did not fit")
	}
}

// Where nothing can be written any more a daemon starts all the same, and the
// command cleans up: who makes room there must be able to begin.
func TestDaemonStartsAndCleansUpWithoutSpace(t *testing.T) {
	t.Parallel()
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--cleanup-mode", "manual")
	d.Stop(t)
	litter(t, base, 2)
	zfsCommand(t, "set", fmt.Sprintf("refquota=%d", harness.MiB), base.String())
	_, err := harness.Fill(filepath.Join(base.Root, "noise"), 4*harness.MiB)
	require.Error(t, err)
	stdout, stderr, err := harness.RunCommand(t, "zfstpl", cleanupArgs(d)...)
	require.NoError(t, err, stderr)
	assert.Contains(t, stdout, "2 datasets destroyed in ")
	d.Start(t)
	_, err = d.Snapshotter(t).Prepare(context.Background(), "web", "")
	require.NoError(t, err)
	require.NoError(t, d.Snapshotter(t).Remove(context.Background(), "web"))
	d.Stop(t)
	require.NoError(t, os.Remove(filepath.Join(base.Root, "noise")))
}
