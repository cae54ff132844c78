package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
	"github.com/zfstpl/zfstpl/integration/tied"
	"github.com/zfstpl/zfstpl/integration/waits"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// wait is a number of txgs and of ZIL commits that were waited for.
type wait struct{ txgs, zil int }

// waitsOfOperations is what each operation of a daemon with the native client waits for.
var waitsOfOperations = []struct {
	operation    string
	newer, older wait // before the operation returns: with OpenZFS 2.4, which can clone in a program, and with 2.3
	background   wait // after that at most, with both: the log is synchronised, copied and truncated
	// start makes snapshots for n calls of the operation, and returns call number i.
	start func(r *waitsRig, n int) (call func(i int) error)
}{
	{"Prepare of a container", wait{1, 0}, wait{2, 0}, wait{0, 0}, (*waitsRig).makeContainer},
	{"Prepare of an extraction", wait{1, 0}, wait{2, 0}, wait{0, 0}, (*waitsRig).makeExtraction},
	{"View", wait{0, 1}, wait{0, 1}, wait{1, 3}, (*waitsRig).makeView},
	{"Update", wait{0, 1}, wait{0, 1}, wait{1, 3}, (*waitsRig).update},
	// The flush of the runtime is the ZIL commit. It creates the ZIL, which waits for a txg,
	// only if something that was written is not on disk.
	{"Commit of an extraction", wait{2, 1}, wait{4, 1}, wait{0, 2}, (*waitsRig).commitWritten},
	{"Commit of an extraction that is on disk", wait{1, 1}, wait{3, 1}, wait{0, 2}, (*waitsRig).commitSynced},
	{"Remove of a container", wait{0, 0}, wait{0, 0}, wait{1, 4}, (*waitsRig).removeContainer},
	{"Remove of a view", wait{0, 0}, wait{0, 0}, wait{1, 4}, (*waitsRig).removeView},
	{"Mounts", wait{0, 0}, wait{0, 0}, wait{0, 0}, (*waitsRig).mounts},
	{"Stat", wait{0, 0}, wait{0, 0}, wait{0, 0}, (*waitsRig).stat},
	{"Usage", wait{0, 0}, wait{0, 0}, wait{0, 0}, (*waitsRig).usage},
}

// idleTime is how long a daemon must have waited for nothing to be idle. It is more than the
// time after which the journal copies what operations left to it: half a second, and then at
// most another one after the second in which no operation may have run.
const idleTime = 3 * time.Second

// Each call of an operation waits for the numbers of the table, exactly. What is left to the
// background has an upper limit.
//
// The probe counts all threads of the daemon, also those that write in the background.
// Therefore the snapshots for all calls are made first, and the daemon is idle before each
// call. What an operation leaves to the background begins half a second after its end, so it
// is not counted for the operation, but until the daemon is idle again. The cleanup mark is
// no part of it: the first layer's runtime is garbage, so the base has the mark already. The
// pool has no other user, because the test is not parallel.
func TestOperationsWaitForExactlyTheseTxgs(t *testing.T) {
	calls := 10
	if testing.Short() {
		calls = 1
	}
	r := newWaitsRig(t, "--ready-runtimes=0")
	for _, c := range waitsOfOperations {
		t.Run(c.operation, func(t *testing.T) {
			if c.newer == c.older {
				onlyOnce(t, false, "takes seconds without other tests, and waits for the same with both releases")
			}
			r := r.in(t)
			want := c.newer
			if !r.clonesInPrograms {
				want = c.older
			}
			call := c.start(r, calls)
			r.waitUntilIdle()
			for i := range calls {
				if testing.Short() { // does not wait for what is left to the background
					got := r.countCall(func() error { return call(i) })
					assert.Equal(t, want, got, "call %d waits for\n%s", i, r.details())
					continue
				}
				got, later := r.count(func() error { return call(i) })
				t.Logf("call %d: %d txgs and %d ZIL commits, in the background %d and %d", i, got.txgs, got.zil, later.txgs, later.zil)
				assert.Equal(t, want, got, "call %d waits for\n%s", i, r.details())
				assert.LessOrEqual(t, later.txgs, c.background.txgs, "call %d, in the background:\n%s", i, r.details())
				assert.LessOrEqual(t, later.zil, c.background.zil, "call %d, in the background:\n%s", i, r.details())
			}
		})
	}
}

// A container that gets a ready runtime waits for its entry in the log only. An extraction waits
// for nothing.
func TestAReadyRuntimeSavesTheTxg(t *testing.T) {
	onlyOnce(t, false, "takes half a minute without other tests, and waits for the same with both releases")
	r := newWaitsRig(t, "--ready-runtimes=16")
	_, err := r.container(r.number())
	require.NoError(t, err)
	calls := 6
	if testing.Short() {
		calls = 3
	}
	for i := range calls {
		require.Eventually(t, func() bool { return countReady(r.t, r.base) >= 2 }, harness.Patience, 100*time.Millisecond)
		r.waitUntilIdle()
		make, want := r.container, wait{0, 1}
		if i%3 == 2 {
			make, want = r.extraction, wait{0, 0}
		}
		var key string
		got := r.countCall(func() (err error) { key, err = make(r.number()); return err })
		assert.Equal(t, want, got, "call %d waits for\n%s", i, r.details())
		if i%3 == 1 {
			r.requireIntentLog(key)
		}
	}
}

// requireIntentLog asserts that a container whose runtime was ready has an intent log, so that
// its commit flushes what was just written without a txg, and that the daemon has changed
// nothing visible in it.
func (r *waitsRig) requireIntentLog(key string) {
	r.t.Helper()
	ctx := context.Background()
	stdout, stderr, err := harness.RunCommand(r.t, "zfstpl", "diff", key, "--config", os.DevNull, "--dataset", r.base.String())
	require.NoError(r.t, err, stderr)
	assert.Empty(r.t, stdout, "nothing is changed in a new container")
	mounts, err := r.sn.Mounts(ctx, key)
	require.NoError(r.t, err)
	r.waitUntilIdle()
	harness.Mounted(r.t, mounts, func(root string) { require.NoError(r.t, harness.Touch(root, "file")) })
	want := wait{1, 1}
	if !r.clonesInPrograms {
		want.txgs = 3
	}
	got := r.countCall(func() error { return r.sn.Commit(ctx, key+"-saved", key) })
	assert.Equal(r.t, want, got, "the commit waits for\n%s", r.details())
}

// count returns what a call waits for, and what the daemon waits for in the background after it.
func (r *waitsRig) count(call func() error) (got, later wait) {
	r.t.Helper()
	got = r.countCall(call)
	r.waitUntilIdle()
	all := r.counts()
	return got, wait{all.Txgs - got.txgs, all.ZIL - got.zil}
}

// countCall returns what a call waits for.
func (r *waitsRig) countCall(call func() error) wait {
	r.t.Helper()
	var err error
	c, watchErr := r.watch.During(func() { err = call() })
	require.NoError(r.t, watchErr)
	require.NoError(r.t, err)
	return wait{c.Txgs, c.ZIL}
}

func (r *waitsRig) counts() waits.Counts {
	r.t.Helper()
	c, err := r.watch.Counts()
	require.NoError(r.t, err)
	return c
}

func (r *waitsRig) details() string { return r.counts().Details() }

// waitsRig is a daemon whose waits are counted, with an image.
type waitsRig struct {
	t                testing.TB
	base             *testpool.Base
	daemon           *harness.Daemon
	sn               snapshots.Snapshotter
	watch            *waits.Watch
	image            string
	clonesInPrograms bool
	made             *int // number of snapshots that were made
}

func newWaitsRig(t *testing.T, flags ...string) *waitsRig {
	t.Helper()
	base := pool.NewBaseWith(t, zfs.Native)
	release, err := base.Client.Release(context.Background())
	require.NoError(t, err)
	d := harness.StartDaemon(t, base, flags...)
	sn := d.Snapshotter(t)
	r := &waitsRig{base: base, daemon: d, t: t, sn: sn, made: new(int),
		watch:            harness.WatchWaits(t, d.Cmd.Process.Pid, pool.Name),
		image:            harness.PullLayer(t, sn, "ns", 1, "", harness.ChainID(1)),
		clonesInPrograms: release.AtLeast(zfs.Release{Major: 2, Minor: 4})}
	t.Cleanup(func() {
		harness.RemoveAll(t, sn)
		assert.NoError(t, sn.Cleanup(context.Background()))
	})
	return r
}

// in returns the rig for a subtest.
func (r *waitsRig) in(t testing.TB) *waitsRig {
	one := *r
	one.t = t
	return &one
}

func (r *waitsRig) waitUntilIdle() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	require.NoError(r.t, r.watch.WaitUntilIdle(ctx, idleTime))
}

// number returns the number of a new snapshot.
func (r *waitsRig) number() int { *r.made++; return *r.made + 1000 }

// names returns n names of snapshots, each of which make has made.
func (r *waitsRig) names(n int, make func(i int) (string, error)) (names []string) {
	r.t.Helper()
	for range n {
		name, err := make(r.number())
		require.NoError(r.t, err)
		names = append(names, name)
	}
	return names
}

// container, view and extraction make a snapshot on the image.
func (r *waitsRig) container(n int) (string, error) {
	key := fmt.Sprintf("ns/%d/container", n)
	_, err := r.sn.Prepare(context.Background(), key, r.image)
	return key, err
}

func (r *waitsRig) view(n int) (string, error) {
	key := fmt.Sprintf("ns/%d/view", n)
	_, err := r.sn.View(context.Background(), key, r.image)
	return key, err
}

func (r *waitsRig) extraction(n int) (string, error) {
	chain := harness.ChainID(n)
	key := harness.Extraction("ns", n, chain)
	_, err := r.sn.Prepare(context.Background(), key, r.image, harness.WithRef(chain))
	return key, err
}

func (r *waitsRig) makeContainer(int) func(int) error  { return r.making(r.container) }
func (r *waitsRig) makeView(int) func(int) error       { return r.making(r.view) }
func (r *waitsRig) makeExtraction(int) func(int) error { return r.making(r.extraction) }

func (r *waitsRig) making(make func(n int) (string, error)) func(int) error {
	return func(int) error { _, err := make(r.number()); return err }
}

func (r *waitsRig) update(n int) func(int) error {
	names := r.names(n, r.container)
	return func(i int) error {
		_, err := r.sn.Update(context.Background(), snapshots.Info{Name: names[i], Labels: map[string]string{"note": "new"}}, "labels.note")
		return err
	}
}

// commitWritten returns commits of extractions that another program than the daemon has just
// written to, as containerd's own differ does.
func (r *waitsRig) commitWritten(n int) func(int) error { return r.commit(n, true) }

// commitSynced returns commits of extractions whose data is on disk.
func (r *waitsRig) commitSynced(n int) func(int) error { return r.commit(n, false) }

func (r *waitsRig) commit(n int, again bool) func(int) error {
	keys := r.names(n, r.extraction)
	write := func(key, name string) {
		mounts, err := r.sn.Mounts(context.Background(), key)
		require.NoError(r.t, err)
		harness.Mounted(r.t, mounts, func(root string) { require.NoError(r.t, harness.Touch(root, name)) })
	}
	for _, key := range keys {
		write(key, "file")
	}
	zpoolSync(r.t, pool.Name)
	return func(i int) error {
		if again {
			// After a txg the next one that no program waits for begins five seconds later.
			zpoolSync(r.t, pool.Name)
			write(keys[i], "another")
		}
		chain := keys[i][strings.LastIndex(keys[i], " ")+1:]
		return r.sn.Commit(context.Background(), fmt.Sprintf("ns/%d/%s", r.number(), chain), keys[i], harness.WithRef(chain))
	}
}

func (r *waitsRig) removeContainer(n int) func(int) error { return r.removing(n, r.container) }
func (r *waitsRig) removeView(n int) func(int) error      { return r.removing(n, r.view) }

func (r *waitsRig) removing(n int, make func(n int) (string, error)) func(int) error {
	names := r.names(n, make)
	return func(i int) error { return r.sn.Remove(context.Background(), names[i]) }
}

func (r *waitsRig) mounts(n int) func(int) error {
	names := r.names(n, r.container)
	return func(i int) error { _, err := r.sn.Mounts(context.Background(), names[i]); return err }
}

func (r *waitsRig) stat(n int) func(int) error {
	names := r.names(n, r.container)
	return func(i int) error { _, err := r.sn.Stat(context.Background(), names[i]); return err }
}

// usage returns the first Usage of containers: the next one within five seconds is in memory.
func (r *waitsRig) usage(n int) func(int) error {
	names := r.names(n, r.container)
	return func(i int) error { _, err := r.sn.Usage(context.Background(), names[i]); return err }
}

// 'zfs set' waits for exactly one txg. It is a command of this process, so the probe follows
// it from its start.
func TestProbeCountsTheTxgOfACommand(t *testing.T) {
	base := pool.NewBase(t)
	watch := harness.WatchWaits(t, os.Getpid(), pool.Name)
	for i := range 10 {
		c, err := watch.During(func() { zfsCommand(t, "set", fmt.Sprintf("zfstpl-test:note=%d", i), base.String()) })
		require.NoError(t, err)
		require.Equal(t, wait{1, 0}, wait{c.Txgs, c.ZIL}, "%s", c.Details())
	}
	c, err := watch.During(func() { zfsCommand(t, "get", "all", base.String()) })
	require.NoError(t, err)
	require.Equal(t, wait{0, 0}, wait{c.Txgs, c.ZIL}, "%s", c.Details())
}

// The txgs of other processes do not count.
func TestProbeCountsOneProcessOnly(t *testing.T) {
	base := pool.NewBase(t)
	other := exec.Command("sleep", "infinity")
	require.NoError(t, tied.Start(other))
	t.Cleanup(func() {
		assert.NoError(t, other.Process.Kill())
		assert.Error(t, other.Wait())
	})
	watch := harness.WatchWaits(t, other.Process.Pid, pool.Name)
	c, err := watch.During(func() { zfsCommand(t, "set", "zfstpl-test:note=x", base.String()) })
	require.NoError(t, err)
	assert.Empty(t, c.Calls)
}

// An fsync is one commit of the ZIL of one dataset, and waits for no txg. Only the first one
// in a file system does: it creates the ZIL.
func TestProbeCountsTheZILCommitOfAnFsync(t *testing.T) {
	base := pool.NewBase(t)
	file, err := os.Create(filepath.Join(base.Root, "file"))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, file.Close()) })
	watch := harness.WatchWaits(t, os.Getpid(), pool.Name)
	for i := range 10 {
		c, err := watch.During(func() {
			_, err := file.WriteString(strings.Repeat("x", 400))
			require.NoError(t, err)
			require.NoError(t, file.Sync())
		})
		require.NoError(t, err)
		want := wait{0, 1}
		if i == 0 {
			want.txgs = 1
		}
		require.Equal(t, want, wait{c.Txgs, c.ZIL}, "fsync %d:\n%s", i, c.Details())
		assert.Equal(t, map[string]int{base.String(): 1}, c.Commits)
	}
}

// A watch leaves no probe and no instance of tracefs, and removes those of a process that
// ended without removing its own.
func TestWatchLeavesNoProbe(t *testing.T) {
	const tracing = "/sys/kernel/tracing"
	harness.WatchWaits(t, os.Getpid(), pool.Name) // or the test is skipped
	own := namesOfProbes(t, tracing)
	assert.NotEmpty(t, own)
	leaveProbe(t, tracing)
	assert.NotEqual(t, own, namesOfProbes(t, tracing))
	t.Run("another watch", func(t *testing.T) { harness.WatchWaits(t, os.Getpid(), pool.Name) })
	assert.Equal(t, own, namesOfProbes(t, tracing))
}

// namesOfProbes returns the names of the probes and of their instances of tracefs.
func namesOfProbes(t *testing.T, tracing string) []string {
	t.Helper()
	probes, err := os.ReadFile(filepath.Join(tracing, "kprobe_events"))
	require.NoError(t, err)
	names, err := filepath.Glob(filepath.Join(tracing, "instances", "zfstpl_waits*"))
	require.NoError(t, err)
	return append(names, regexp.MustCompile(`zfstpl_waits_\S+`).FindAllString(string(probes), -1)...)
}

// leaveProbe leaves what a killed process leaves.
func leaveProbe(t *testing.T, tracing string) {
	t.Helper()
	ended := exec.Command("true")
	require.NoError(t, ended.Run())
	name := fmt.Sprintf("zfstpl_waits_%d_1", ended.Process.Pid)
	list, err := os.OpenFile(filepath.Join(tracing, "kprobe_events"), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = fmt.Fprintf(list, "p:%s/begin_x txg_wait_synced\n", name)
	require.NoError(t, err)
	require.NoError(t, list.Close())
	instance := filepath.Join(tracing, "instances", name)
	require.NoError(t, os.Mkdir(instance, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(instance, "events", name, "enable"), []byte("1"), 0))
}
