package integration

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

var heldCount = flag.Int("held.count", 1000, "how many containers TestManyHeldMounts has")

// usedMemory returns the bytes that the kernel and all processes use, without what
// it can free at once. ZFS frees some of it later, so it waits until little changes.
func usedMemory(t testing.TB) int {
	t.Helper()
	const little = 1 << 20
	read := func() int {
		require.NoError(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0))
		text, err := os.ReadFile("/proc/meminfo")
		require.NoError(t, err)
		kib := make(map[string]int)
		for line := range strings.Lines(string(text)) {
			if words := strings.Fields(line); len(words) > 1 {
				kib[words[0]], _ = strconv.Atoi(words[1])
			}
		}
		return (kib["MemTotal:"] - kib["MemAvailable:"]) << 10
	}
	used := read()
	for range 20 {
		time.Sleep(2 * time.Second)
		before := used
		if used = read(); before-used < little && used-before < little {
			break
		}
	}
	return used
}

// heldIdle is how long TestManyHeldMounts measures what the processes do when nothing
// happens.
const heldIdle = 30 * time.Second

// A thousand stopped containers, and then as many whose root is mounted, are found
// again by a start. The test prints what they cost: memory, the length of the mount
// table, the time of a start, and the processor time of systemd, containerd, the daemon
// and the client that mounts, which is this process. It does so with mounts that the
// daemon holds, and with none.
//
// A container is its snapshot and the mount that containerd's shim makes of it, in the
// mount namespace of the host. The shims and the processes of a thousand containers do
// not fit into the testbed. What these cost, and the mounts in a container's own mount
// namespace, which systemd does not see, is not measured.
func TestManyHeldMounts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes: 'make test-long' runs it")
	}
	for _, form := range []string{"auto", "zfs"} {
		t.Run("mounts="+form, func(t *testing.T) { measureMany(t, form, form == "auto") })
	}
}

func measureMany(t *testing.T, form string, held bool) {
	ctx := context.Background()
	count := *heldCount
	base := pool.NewBase(t)
	d := harness.StartDaemon(t, base, "--mounts", form)
	c := startContainerd(t, d)
	sd := startSystemd(t)
	sn := c.snapshotter(t, "many")
	restart := func() time.Duration {
		d.Stop(t)
		began := time.Now()
		d.Start(t)
		return time.Since(began).Round(time.Millisecond)
	}
	each := func(do func(i int) error) {
		t.Helper()
		var g errgroup.Group
		g.SetLimit(8)
		for i := range count {
			g.Go(func() error { return do(i) })
		}
		require.NoError(t, g.Wait())
	}
	phase := func(what string, do func()) {
		t.Helper()
		line := fmt.Sprintf("mounts=%s, %d containers %s", form, count, what)
		pids := map[string]int{"containerd": c.cmd.Process.Pid, "daemon": d.Cmd.Process.Pid, "client": os.Getpid()}
		names := []string{"containerd", "daemon", "client"}
		if sd != nil {
			pids["systemd"], names = sd.pid, append([]string{"systemd"}, names...)
			sd.settle(t)
		}
		before := make(map[string]time.Duration)
		for name, pid := range pids {
			before[name] = processorTime(t, pid)
		}
		began := time.Now()
		do()
		line += fmt.Sprintf(" in %.1f s; processor time", time.Since(began).Seconds())
		if sd != nil {
			sd.settle(t)
		}
		for _, name := range names {
			line += fmt.Sprintf(" %s %.2f s", name, (processorTime(t, pids[name]) - before[name]).Seconds())
		}
		t.Log(line)
	}
	table := func() int {
		text, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		return len(text)
	}
	ownAtStart := 0
	if sd != nil {
		sd.settle(t)
		ownAtStart = sd.memory(t)
	}
	report := func(what string, memory int, start time.Duration) {
		own := ""
		if sd != nil {
			sd.settle(t)
			own = fmt.Sprintf(", systemd with %.1f KiB of its own more for each than at its start", float64(sd.memory(t)-ownAtStart)/1024/float64(count))
		}
		t.Logf("mounts=%s, %d containers, %s: %d KiB of memory each, a mount table of %d KiB, a start of the daemon in %s%s",
			form, count, what, memory/1024/count, table()/1024, start, own)
	}
	key := func(i int) string { return fmt.Sprint(i) }

	mounts := make([][]mount.Mount, count)
	phase("are prepared", func() {
		each(func(i int) (err error) {
			// containerd's garbage collection leaves alone what has the label.
			mounts[i], err = sn.Prepare(ctx, key(i), "", snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "stays"}))
			return err
		})
	})
	require.NoError(t, testpool.Unmount(d.Address))
	start := restart()
	none := usedMemory(t)
	report("nothing mounted", 0, start)

	if held {
		var wrong atomic.Int64
		phase("are mounted by the daemon again", func() {
			each(func(i int) error {
				again, err := sn.Mounts(ctx, key(i))
				if err == nil && again[0].Source != mounts[i][0].Source {
					wrong.Add(1)
				}
				return err
			})
		})
		assert.Zero(t, wrong.Load())
		start = restart()
		report("held", usedMemory(t)-none, start)
	}

	root := t.TempDir()
	place := func(i int) string { return filepath.Join(root, key(i)) }
	t.Cleanup(func() {
		for i := range count {
			_ = unix.Unmount(place(i), unix.MNT_DETACH) // of a test that failed
		}
	})
	phase("are mounted as running ones are", func() {
		each(func(i int) error {
			if err := os.Mkdir(place(i), 0o700); err != nil {
				return err
			}
			return mount.All(mounts[i], place(i))
		})
	})
	if sd != nil {
		assert.Equal(t, count, sd.mountUnits(t, root), "systemd knows the mounts")
		if held {
			assert.Equal(t, count, sd.mountUnits(t, filepath.Join(filepath.Dir(d.Address), "mnt")), "and those that are held")
		}
	}
	start = restart()
	report("mounted as running ones are", usedMemory(t)-none, start)
	phase("do nothing", func() { time.Sleep(heldIdle) })
	phase("are unmounted", func() {
		each(func(i int) error { return mount.UnmountAll(place(i), 0) })
	})
	phase("are removed", func() {
		each(func(i int) error { return sn.Remove(ctx, key(i)) })
		c.collect(t, "many")
		d.Clean(t)
	})
	assert.Equal(t, []string{"", "/runtime", "/storage", "/storage/empty"}, base.Names(t))
	entries, err := os.ReadDir(filepath.Join(filepath.Dir(d.Address), "mnt"))
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	assert.Empty(t, entries)
}
