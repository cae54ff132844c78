package plugin

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/log"
	"github.com/moby/sys/mountinfo"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

func TestPlaceIsBelowTheAltroot(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ altroot, root, mountpoint, place string }{
		{"", "/srv/z", "/srv/z", "/srv/z"},
		{"/", "/srv/z/", "/srv/z", "/srv/z"},
		{"/mnt", "/srv/z", "/srv/z", "/mnt/srv/z"},
		{"/mnt", "/mnt/srv/z", "/srv/z", "/mnt/srv/z"},
		{"/mnt/", "/mnt", "/", "/mnt"},
		{"/mnt", "/mnt2/z", "/mnt2/z", "/mnt/mnt2/z"},
	} {
		assert.Equal(t, c.mountpoint, mountpoint(c.altroot, c.root), "%+v", c)
		assert.Equal(t, c.place, placeOf(c.altroot, c.root), "%+v", c)
	}
}

// A root may be given with the altroot and without it.
func TestRootIsComparedBelowTheAltroot(t *testing.T) {
	t.Parallel()
	place := t.TempDir()
	outputs := listed("zfstpl:version=1", "mountpoint="+place+"/srv/z")
	outputs["pool"] = "altroot\t" + place + "\n"
	base, _ := fakePool(t, outputs)
	pool := opened(t, base)
	for _, root := range []string{"", "/srv/z", place + "/srv/z", place + "/srv/z/"} {
		got, err := mountBase(t.Context(), pool, base, root)
		require.NoError(t, err, root)
		assert.Equal(t, place+"/srv/z", got)
	}
	_, err := mountBase(t.Context(), pool, base, place+"/srv/other")
	require.ErrorContains(t, err, "zfs set mountpoint=/srv/other "+base.String(), "ZFS's command has no altroot")
}

func TestMountBaseErrorNamesTheUnloadedKey(t *testing.T) {
	t.Parallel()
	outputs := listed("zfstpl:version=1", "mountpoint=/srv/z")
	outputs["base"] += "keystatus\t-\tunavailable\nencryptionroot\t-\tPOOL/above\n"
	base, _ := fakePool(t, outputs)
	_, err := mountBase(t.Context(), opened(t, base), base, "")
	require.ErrorContains(t, err, "'zfs load-key "+base.Pool()+"/above'")
	assert.NotContains(t, err.Error(), "\n")
}

func TestReadOnlyPoolIsRefused(t *testing.T) {
	t.Parallel()
	base, _ := fakePool(t, map[string]string{"program.err": "Channel program execution failed: pool is read-only\n"})
	pool := opened(t, base)
	err := writable(pool, base)
	require.ErrorContains(t, err, "pool "+base.Pool()+" is imported read-only")
}

func TestMisplacedReportsMountsThatOnlyZFSMakes(t *testing.T) {
	t.Parallel()
	base, err := layout.ParseBase("tank/z")
	require.NoError(t, err)
	template := "tank/z/storage/sha256:11"
	for what, c := range map[string]struct {
		mount mountinfo.Info
		want  bool
	}{
		"a template":                 {mountinfo.Info{Source: template, Mountpoint: "/x", Options: "rw,noatime", VFSOptions: "rw,xattr"}, true},
		"storage itself":             {mountinfo.Info{Source: "tank/z/storage", Mountpoint: "/x", Options: "rw", VFSOptions: "rw"}, true},
		"a template, read-only":      {mountinfo.Info{Source: template, Mountpoint: "/x", Options: "ro,noatime", VFSOptions: "rw"}, false},
		"a view":                     {mountinfo.Info{Source: template + "@extracted", Mountpoint: "/x", Options: "rw", VFSOptions: "ro"}, false},
		"another base":               {mountinfo.Info{Source: "tank/z/storage2/a", Mountpoint: "/x", Options: "rw", VFSOptions: "rw"}, false},
		"a container's root":         {mountinfo.Info{Source: "tank/z/runtime/web-1", Mountpoint: "/run/web/rootfs", Options: "rw"}, false},
		"a runtime where ZFS put it": {mountinfo.Info{Source: "tank/z/runtime/web-1", Mountpoint: "/tank/z/runtime/web-1", Options: "rw"}, true},
		"runtime itself":             {mountinfo.Info{Source: "tank/z/runtime", Mountpoint: "/tank/z/runtime", Options: "rw"}, true},
		"the base":                   {mountinfo.Info{Source: "tank/z", Mountpoint: "/tank/z", Options: "rw"}, false},
	} {
		c.mount.FSType = "zfs"
		assert.Equal(t, c.want, misplaced(&c.mount, base, "/tank/z/runtime"), what)
		c.mount.FSType = "ext4"
		assert.False(t, misplaced(&c.mount, base, "/tank/z/runtime"), what)
	}
	lost := mountinfo.Info{FSType: "zfs", Source: "tank/z/runtime/web-1", Mountpoint: "/web-1", Options: "rw"}
	assert.False(t, misplaced(&lost, base, ""), "runtime has mountpoint=legacy")
}

// One mount covers another, which is on a third: all are unmounted, except for a busy
// one.
func TestStackedMountsAreUnmounted(t *testing.T) {
	t.Parallel()
	var gone []int
	waits := map[int]int{1: 2, 2: 3}
	unmount := func(id int, _ string) error {
		if id == 9 {
			return errors.New("device or resource busy")
		}
		if before := waits[id]; before != 0 && !slices.Contains(gone, before) {
			return errors.New("another mount covers it")
		}
		gone = append(gone, id)
		return nil
	}
	mounts := []*mountinfo.Info{{ID: 1}, {ID: 2}, {ID: 9, Source: "tank/z/storage/a", Mountpoint: "/a"}, {ID: 3}}
	var text strings.Builder
	logger := logrus.New()
	logger.SetOutput(&text)
	unmountAll(log.WithLogger(t.Context(), logrus.NewEntry(logger)), mounts, unmount)
	assert.Equal(t, []int{3, 2, 1}, gone)
	assert.Contains(t, text.String(), `fix="umount /a"`)
	assert.Equal(t, 1, strings.Count(text.String(), "failed to unmount misplaced dataset"))
}
