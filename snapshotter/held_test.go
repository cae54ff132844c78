package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/internal/mounts"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

// fakeHeldMounts implements mounts.Holder. The mounts outlive a snapshotter, and the pool
// refuses to destroy mounted datasets.
type fakeHeldMounts struct {
	pool *zfsfake.Pool
	at   map[string]string // paths by dataset
	fail error

	objects    uint64          // of each mount; 0: they cannot be counted
	visible    map[string]bool // by the root directory of another process
	visibleErr error
}

const heldDir = "/run/zfstpl/mnt"

func (k *fakeHeldMounts) Path() string { return heldDir }

func (k *fakeHeldMounts) Visible(root, _ string) (bool, error) { return k.visible[root], k.visibleErr }

func (k *fakeHeldMounts) Objects(dataset string) (uint64, bool) {
	return k.objects, k.objects > 0 && k.at[dataset] != ""
}

func (k *fakeHeldMounts) Held() []string { return slices.Sorted(maps.Keys(k.at)) }

func (k *fakeHeldMounts) Hold(ctx context.Context, dataset, id string) (string, error) {
	if k.fail != nil {
		return "", k.fail
	}
	path := filepath.Join(heldDir, id)
	if k.at[dataset] == "" {
		if err := k.pool.MountAt(ctx, dataset, path); err != nil {
			return "", err
		}
		k.pool.Edit(func(s *zfsfake.State) { s.Mounted[dataset] = true })
	}
	k.at[dataset] = path
	return path, nil
}

func (k *fakeHeldMounts) Release(dataset string) error {
	delete(k.at, dataset)
	k.pool.Edit(func(s *zfsfake.State) { delete(s.Mounted, dataset) })
	return nil
}

// newHeldFixture is newFixture with held mounts.
func newHeldFixture(t *testing.T, with ...func(*Config)) (*fixture, *fakeHeldMounts) {
	t.Helper()
	k := &fakeHeldMounts{at: make(map[string]string)}
	s := newFixture(t, settings(func(c *Config) {
		c.MountDir, c.holder = heldDir, k
		for _, set := range with {
			set(c)
		}
	}), func(s *fixture) { k.pool = s.pool })
	return s, k
}

// bindMounts returns the expected mounts of an active snapshot with a held mount.
func bindMounts(s *fixture, key string, options ...string) []mount.Mount {
	id, _ := s.sn.config.runtimeID(s.dataset(key))
	return []mount.Mount{{Type: "bind", Source: filepath.Join(heldDir, id), Options: append([]string{"rbind", "rw"}, options...)}}
}

// The mounts of an active snapshot bind its held mount, which exists until a cleanup destroys
// the runtime.
func TestActiveSnapshotBindsHeldMountUntilCleanup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, k := newHeldFixture(t)
		s.layer("image", "", "a;")
		s.requireInvariants()
		require.Empty(t, k.Held(), "the runtime of a commit has no held mount")

		got := s.prepare("web", "image")
		assert.Equal(t, bindMounts(s, "web"), got)
		runtime := s.dataset("web")
		assert.Equal(t, []string{runtime}, k.Held(), "mounted before Prepare returns")
		delete(k.at, runtime) // unmounted by an administrator or a reboot
		again, err := s.sn.Mounts(s.ctx, "web")
		require.NoError(t, err)
		assert.Equal(t, got, again)
		assert.Equal(t, []string{runtime}, k.Held(), "mounted before Mounts returns")

		dataset, ok := s.sn.HeldAt(got[0].Source)
		assert.True(t, ok)
		assert.Equal(t, runtime, dataset)
		for _, path := range []string{heldDir, heldDir + "/0123456789abcdef", got[0].Source + "/etc", "/run/other/" + filepath.Base(got[0].Source)} {
			_, ok := s.sn.HeldAt(path)
			assert.False(t, ok, path)
		}

		s.remove("web")
		_, ok = s.sn.HeldAt(got[0].Source)
		assert.False(t, ok, "the snapshot is removed")
		s.cleanup()
		assert.Empty(t, k.Held())
		assert.NotContains(t, s.datasets(), runtime)
		s.requireInvariants()
	})
}

func TestViewHasNoHeldMountAndBindHasOptions(t *testing.T) {
	t.Parallel()
	s, k := newHeldFixture(t)
	s.layer("image", "", "a;")
	s.cleanup()
	view := s.view("look", "image")
	assert.Equal(t, []mount.Mount{{Type: "zfs", Source: s.templateOf("image") + "@extracted", Options: []string{"ro"}}}, view)
	assert.Empty(t, k.Held(), "a view mounts the template's snapshot")

	mapped := s.prepare("mapped", "image", snapshots.WithLabels(map[string]string{
		snapshots.LabelSnapshotUIDMapping: "0:100000:65536", snapshots.LabelSnapshotGIDMapping: "0:100000:65536"}))
	assert.Equal(t, bindMounts(s, "mapped", "uidmap=0:100000:65536", "gidmap=0:100000:65536"), mapped)
}

func TestMountFormSelectsMounts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		form  MountForm
		other bool // the caller is in another mount namespace
		want  string
	}{
		{"", false, "bind"}, {MountAuto, false, "bind"}, {MountAuto, true, "zfs"},
		{MountBind, true, "bind"}, {MountZFS, false, "zfs"},
	} {
		t.Run(fmt.Sprintf("%s/%v", c.form, c.other), func(t *testing.T) {
			t.Parallel()
			s, k := newHeldFixture(t, func(config *Config) { config.Mounts = c.form })
			ctx := s.ctx
			if c.other {
				k.visible = map[string]bool{"/proc/7/root": true}
				ctx = WithOtherMountNamespace(ctx, "/proc/7/root")
			}
			mounts, err := s.sn.Prepare(ctx, "web", "")
			require.NoError(t, err)
			require.Equal(t, c.want, mounts[0].Type)
			again, err := s.sn.Mounts(ctx, "web")
			require.NoError(t, err)
			assert.Equal(t, mounts, again)
			if c.want == "bind" {
				assert.Equal(t, bindMounts(s, "web"), mounts)
				assert.Equal(t, []string{s.dataset("web")}, k.Held())
			} else {
				assert.Equal(t, []mount.Mount{{Type: "zfs", Source: s.dataset("web")}}, mounts)
				assert.Empty(t, k.Held(), "there is none beside a client's own mount")
			}
		})
	}
	config := Config{Mounts: "overlay"}
	assert.ErrorIs(t, config.check(), errdefs.ErrInvalidArgument)
}

// Without the held mount in the caller's mount namespace the client would bind an empty
// directory.
func TestForcedBindFailsIfHeldMountIsInvisible(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, k := newHeldFixture(t, func(config *Config) { config.Mounts = MountBind })
		s.prepare("web", "")
		k.visible = map[string]bool{"/proc/7/root": true}
		mounts, err := s.sn.Mounts(WithOtherMountNamespace(s.ctx, "/proc/7/root"), "web")
		require.NoError(t, err)
		assert.Equal(t, bindMounts(s, "web"), mounts)
		mounts, err = s.sn.Mounts(WithOtherMountNamespace(s.ctx, ""), "web")
		require.NoError(t, err, "without a path to the root directory nothing is checked")
		assert.Equal(t, bindMounts(s, "web"), mounts)

		blind := WithOtherMountNamespace(s.ctx, "/proc/8/root")
		_, err = s.sn.Mounts(blind, "web")
		require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
		assert.ErrorContains(t, err, s.dataset("web"))
		assert.ErrorContains(t, err, `mounts = "auto"`)
		_, err = s.sn.Prepare(blind, "db", "")
		require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
		_, err = s.sn.Stat(s.ctx, "db")
		require.ErrorIs(t, err, errdefs.ErrNotFound, "the failed Prepare left no snapshot")
		s.cleanup()
		assert.Equal(t, []string{s.dataset("web")}, k.Held())

		k.visibleErr = errors.New("not permitted")
		_, err = s.sn.Mounts(blind, "web")
		require.ErrorIs(t, err, k.visibleErr)
		s.requireInvariants()
	})
}

// If the caller mounts datasets, Mounts unmounts a held mount that Prepare created for another
// caller or under another setting.
func TestMountsReleasesHeldMountForClientMount(t *testing.T) {
	t.Parallel()
	s, k := newHeldFixture(t)
	s.prepare("web", "")
	require.Len(t, k.Held(), 1)
	mounts, err := s.sn.Mounts(WithOtherMountNamespace(s.ctx, "/proc/7/root"), "web")
	require.NoError(t, err)
	assert.Equal(t, []mount.Mount{{Type: "zfs", Source: s.dataset("web")}}, mounts)
	assert.Empty(t, k.Held())
}

// Usage does not mount a runtime to count its objects if clients mount datasets.
func TestUsageCountsNoObjectsIfClientsMountDataset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := newHeldFixture(t, func(c *Config) { c.Mounts = MountZFS })
		s.prepare("web", "")
		s.write("web", "a;")
		time.Sleep(usageMaxAge)
		counted := s.pool.Count(zfsfake.Before(zfsfake.Objects))
		usage, err := s.sn.Usage(s.ctx, "web")
		require.NoError(t, err)
		assert.Equal(t, snapshots.Usage{Size: 2}, usage)
		assert.Zero(t, counted())
	})
}

// If a foreign mount is in the place of a held mount, the call fails and changes nothing.
func TestFailedHeldMountFailsOnlyTheCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, k := newHeldFixture(t)
		s.prepare("web", "")
		taken := fmt.Errorf("%w: a tmpfs", mounts.ErrForeign)
		k.fail = taken
		_, err := s.sn.Mounts(s.ctx, "web")
		require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
		require.ErrorIs(t, err, taken)
		assert.ErrorContains(t, err, s.dataset("web"), "the error names the dataset")
		assert.ErrorContains(t, err, `"web"`, "the error names the key")

		_, err = s.sn.Prepare(s.ctx, "db", "")
		require.ErrorIs(t, err, errdefs.ErrFailedPrecondition)
		_, err = s.sn.Stat(s.ctx, "db")
		require.ErrorIs(t, err, errdefs.ErrNotFound, "a failed Prepare creates no snapshot")

		mounts, err := s.sn.Mounts(WithOtherMountNamespace(s.ctx, "/proc/7/root"), "web")
		require.NoError(t, err, "a client that mounts the dataset needs no held mount")
		assert.Equal(t, "zfs", mounts[0].Type)

		k.fail = nil
		s.prepare("db", "")
		s.requireInvariants()
	})
}

// Held mounts outlive the snapshotter, except those of garbage, which Close or the next start
// unmounts.
func TestCloseKeepsHeldMountsExceptGarbage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, k := newHeldFixture(t, func(c *Config) { c.Cleanup = CleanupManual })
		s.prepare("web", "")
		s.prepare("old", "")
		web, old := s.dataset("web"), s.dataset("old")
		s.remove("old")
		require.Equal(t, []string{old, web}, k.Held())
		require.NoError(t, s.sn.Close())
		assert.Equal(t, []string{web}, k.Held(), "garbage can be destroyed without a daemon")

		_, err := k.Hold(s.ctx, old, "0123456789abcdef")
		require.NoError(t, err)
		s.start()
		assert.Equal(t, []string{web}, k.Held(), "a start unmounts what a killed daemon left")
		mounts, err := s.sn.Mounts(s.ctx, "web")
		require.NoError(t, err)
		assert.Equal(t, bindMounts(s, "web"), mounts)
	})
}

// Renew unmounts the held mount of the old runtime. Mounts creates that of the new one.
func TestRenewReplacesHeldMount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, k := newHeldFixture(t)
		key := "default/1/extract-1-x " + chain("a")
		s.prepare(key, "")
		old := s.dataset(key)
		fresh, _, err := s.sn.Renew(s.ctx, old, errors.New("no space"))
		require.NoError(t, err)
		assert.NotContains(t, k.Held(), old)
		assert.NotContains(t, s.datasets(), old)
		mounts, err := s.sn.Mounts(s.ctx, key)
		require.NoError(t, err)
		assert.Equal(t, bindMounts(s, key), mounts)
		assert.Equal(t, []string{fresh}, k.Held())
	})
}

// stuckHeldMounts is fakeHeldMounts with mounts that cannot be unmounted.
type stuckHeldMounts struct {
	*fakeHeldMounts
	stuck *sync.Map // by dataset
}

func (k stuckHeldMounts) Release(dataset string) error {
	if _, stuck := k.stuck.Load(dataset); stuck {
		return errors.New("no")
	}
	return k.fakeHeldMounts.Release(dataset)
}

// A held mount that cannot be unmounted keeps its runtime, which stays garbage. The other
// datasets of the batch are destroyed.
func TestFailedUnmountKeepsOnlyItsRuntime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := stuckHeldMounts{&fakeHeldMounts{at: make(map[string]string)}, &sync.Map{}}
		s := newFixture(t, keepCached(time.Hour), settings(func(c *Config) { c.MountDir, c.holder = heldDir, k }), func(s *fixture) { k.pool = s.pool })
		a, _ := s.pull("default", "", chain("a"), "a;")
		template := s.templateOf(a)
		s.cleanup()
		s.remove(a)
		s.prepare("web", "")
		web := s.dataset("web")
		k.stuck.Store(web, true)
		time.Sleep(2 * time.Hour)
		s.remove("web")
		require.NoError(t, s.sn.Clean(s.ctx, nil))
		assert.True(t, s.has(web))
		assert.False(t, s.has(template))
		assert.Contains(t, s.log.String(), "failed to unmount held mount")
		k.stuck.Delete(web)
		s.waitForRetries()
		assert.False(t, s.has(web))
		s.requireInvariants()
	})
}

// Usage counts the objects of a held mount where it is. To mount the dataset once more takes
// several times as long.
func TestUsageCountsTheObjectsOfTheHeldMount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, k := newHeldFixture(t)
		k.objects = 1000
		s.layer("image", "", "a;")
		s.prepare("web", "image")
		s.write("web", "b;")
		below := s.pool.Count(zfsfake.Before(zfsfake.Objects))
		usage, err := s.sn.Usage(s.ctx, "web")
		require.NoError(t, err)
		assert.Equal(t, 1, below(), "only the template is mounted, to count its objects")
		assert.EqualValues(t, 1000-8, usage.Inodes, "the template has 8")
	})
}
