package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/testpool"
)

// fullPlaces are the ways in which a base has no space at all. Each returns a base, and a
// directory that a test fills.
var fullPlaces = map[string]func(t *testing.T) (base *testpool.Base, fill string){
	"a full pool": func(t *testing.T) (*testpool.Base, string) {
		p := smallPool(t, 64*harness.MiB)
		other := p.Name + "/other"
		zfsCommand(t, "create", "-o", "mountpoint="+filepath.Join(p.Dir, "other"), "-o", "compression=off", other)
		t.Cleanup(func() { zfsCommand(t, "destroy", other) })
		return p.NewBase(t), filepath.Join(p.Dir, "other")
	},
	"a quota on the base": func(t *testing.T) (*testpool.Base, string) {
		base := pool.NewBase(t)
		zfsCommand(t, "set", fmt.Sprintf("quota=%d", narrowRoom), "compression=off", base.String())
		return base, base.Root
	},
	"a refquota on the base": func(t *testing.T) (*testpool.Base, string) {
		base := pool.NewBase(t)
		zfsCommand(t, "set", fmt.Sprintf("refquota=%d", narrowRoom), "compression=off", base.String())
		return base, base.Root
	},
}

// While the log of a base cannot grow, each operation succeeds or returns ResourceExhausted, and
// a killed daemon starts and shows what they have returned. With space again everything works.
func TestBaseWithoutSpaceLosesNothing(t *testing.T) {
	t.Parallel()
	for what, make := range fullPlaces {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			if what != "a full pool" {
				onlyOnce(t, what == "a quota on the base", aQuota)
			}
			base, fill := make(t)
			f := &fullRig{T: t, want: map[string]string{}, doubtful: map[string]string{}, r: rand.New(rand.NewPCG(1, 2))}
			f.daemon = harness.StartDaemon(t, base, "--ready-runtimes=4")
			f.sn = f.daemon.Snapshotter(t)
			f.image = harness.PullLayer(t, f.sn, "ns", 1, "", harness.ChainID(1))
			f.want[f.image] = ""
			for range 10 { // the log has entries, and there are ready runtimes
				f.one()
			}
			require.Zero(t, f.refused)
			filler, err := os.Create(filepath.Join(fill, "filler"))
			require.NoError(t, err)
			for range 3 {
				fillUp(t, filler)
				for range 20 {
					f.one()
				}
				f.daemon.Kill(t)
				f.daemon.Start(t)
				f.sn = f.daemon.Snapshotter(t)
				f.requireAsWanted("after a kill without space")
			}
			t.Logf("%d operations succeeded and %d were refused", f.done, f.refused)
			assert.Positive(t, f.done)
			require.NoError(t, errors.Join(filler.Close(), os.Remove(filler.Name())))
			zpoolSync(t, base.String())
			require.Eventually(t, func() bool { f.one(); return f.health() == grpc_health_v1.HealthCheckResponse_SERVING },
				harness.Patience, 100*time.Millisecond, "the log is written again")
			refused := f.refused
			for range 20 {
				f.one()
			}
			assert.Equal(t, refused, f.refused, "there is space")
			f.requireAsWanted("with space")
			harness.RemoveAll(t, f.sn)
			require.NoError(t, f.sn.(snapshots.Cleaner).Cleanup(context.Background()))
		})
	}
}

// fillUp writes to a file until there is no space.
func fillUp(t *testing.T, file *os.File) {
	t.Helper()
	block := make([]byte, harness.MiB)
	_, err := rand.NewChaCha8([32]byte{1}).Read(block)
	require.NoError(t, err)
	for size := len(block); size >= 512; size /= 2 {
		for err = nil; err == nil; {
			if _, err = file.Write(block[:size]); err == nil {
				err = file.Sync()
			}
		}
		require.True(t, errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT), "%v", err)
	}
}

// fullRig makes operations, and knows which snapshots exist, and their labels.
type fullRig struct {
	*testing.T
	daemon        *harness.Daemon
	sn            snapshots.Snapshotter
	image         string
	want          map[string]string
	doubtful      map[string]string // removed, and the removal may not be durable
	r             *rand.Rand
	number        int
	done, refused int
}

// one makes one operation, which succeeds or is refused for lack of space.
func (f *fullRig) one() {
	f.Helper()
	ctx := context.Background()
	f.number++
	name, label := fmt.Sprintf("ns/%d/snapshot", f.number+100), fmt.Sprint(f.number)
	labels := snapshots.WithLabels(map[string]string{"n": label})
	names := slices.Sorted(maps.Keys(f.want))
	other := names[f.r.IntN(len(names))]
	var err error
	switch f.r.IntN(6) {
	case 0:
		if _, err = f.sn.View(ctx, name, f.image, labels); err == nil {
			f.want[name] = label
		}
	case 1, 2:
		if _, err = f.sn.Prepare(ctx, name, f.image, labels); err == nil {
			f.want[name] = label
		}
	case 3, 4:
		if _, err = f.sn.Update(ctx, snapshots.Info{Name: other, Labels: map[string]string{"n": label}}, "labels.n"); err == nil {
			f.want[other] = label
		}
	default:
		if other == f.image {
			return
		}
		if err = f.sn.Remove(ctx, other); err == nil {
			f.removed(other)
		}
	}
	if err != nil {
		require.True(f, errdefs.IsResourceExhausted(err), "%v", err)
		f.refused++
		return
	}
	f.done++
}

// removed follows a removal. A cleanup makes it durable, if there is space for that.
func (f *fullRig) removed(name string) {
	f.Helper()
	label := f.want[name]
	delete(f.want, name)
	err := f.sn.(snapshots.Cleaner).Cleanup(context.Background())
	if err == nil {
		clear(f.doubtful)
		return
	}
	require.True(f, errdefs.IsResourceExhausted(err), "after the removal of %q: %v", name, err)
	f.doubtful[name] = label
}

func (f *fullRig) requireAsWanted(when string) {
	f.Helper()
	got := make(map[string]string)
	for name, info := range harness.Everything(f, f.sn) {
		got[name] = info.Labels["n"]
	}
	for name, label := range f.doubtful {
		if _, ok := got[name]; ok {
			f.want[name] = label
		}
	}
	clear(f.doubtful)
	require.Equal(f, f.want, got, when)
}

func (f *fullRig) health() grpc_health_v1.HealthCheckResponse_ServingStatus {
	f.Helper()
	reply, err := grpc_health_v1.NewHealthClient(f.daemon.Dial(f)).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{Service: "zfstpl.log"})
	require.NoError(f, err)
	return reply.Status
}
