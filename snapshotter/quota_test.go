package snapshotter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

func maxSizeLabel(v string) snapshots.Opt { return label(snapshots.LabelSnapshotMaxSize, v) }

// refquota returns the refquota of a dataset, or "".
func (s *fixture) refquota(dataset string) (quota string) {
	s.pool.EditFS(dataset, func(fs *zfsfake.FS) { quota = fs.Native["refquota"] })
	return quota
}

// A quota limits what a container adds to its image, without the image.
func TestQuotaLimitsAddedBytes(t *testing.T) {
	t.Parallel()
	const some, more = 1000, 9_000_000_000_000_000_000
	a := chain("a")
	for what, c := range map[string]struct {
		quota uint64
		key   string
		opts  []snapshots.Opt
		size  uint64 // that can be added; 0 for no limit
	}{
		"none":                       {0, "default/1/web", nil, 0},
		"the default":                {some, "default/1/web", nil, some},
		"a label":                    {0, "default/1/web", []snapshots.Opt{maxSizeLabel("42")}, 42},
		"a label over the default":   {some, "default/1/web", []snapshots.Opt{maxSizeLabel("42")}, 42},
		"a large label":              {0, "default/1/web", []snapshots.Opt{maxSizeLabel(fmt.Sprint(uint64(more)))}, more},
		"extraction by its key":      {some, "default/1/extract-1-x " + a, nil, 0},
		"extraction by its label":    {some, "default/1/x", []snapshots.Opt{ref(a)}, 0},
		"an image's annotation":      {some, "default/1/extract-1-x " + a, []snapshots.Opt{maxSizeLabel("42")}, 0},
		"a malformed annotation":     {some, "default/1/extract-1-x " + a, []snapshots.Opt{ref(a), maxSizeLabel("lots")}, 0},
		"a ref that is no chain ID":  {some, "default/1/x", []snapshots.Opt{ref("latest"), maxSizeLabel("lots")}, 0},
		"another label of that kind": {some, "default/1/web", []snapshots.Opt{label("containerd.io/snapshot/min-size", "x")}, some},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, settings(func(config *Config) { config.Quota = c.quota }))
			s.layer("base", "", strings.Repeat("b;", 50))
			s.prepare(c.key, "base", c.opts...)
			want := ""
			if c.size > 0 {
				want = fmt.Sprint(100 + c.size)
			}
			assert.Equal(t, want, s.refquota(s.dataset(c.key)))
			s.restart()
			s.requireInvariants()
		})
	}
}

// A malformed size is rejected before any change.
func TestMalformedSizeIsRejected(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.cleanup()
	before, pool := dump(s.sn), s.datasets()
	calls := s.pool.Count(zfsfake.Before(zfsfake.Call))
	for _, size := range []string{
		"", "0", "-1", "+1", " 1", "1 ", "1k", "10GiB", "1e9", "0x10", "1_000", "1.5", "lots", "\x00", "١",
		"9223372036854775808", "18446744073709551615", "99999999999999999999999999", strings.Repeat("9", 10_000),
	} {
		err := second(s.sn.Prepare(s.ctx, "web", "base", maxSizeLabel(size)))
		require.ErrorIs(t, err, errdefs.ErrInvalidArgument, "%.40q", size)
		assert.ErrorContains(t, err, snapshots.LabelSnapshotMaxSize)
		assert.Less(t, len(err.Error()), 1000)
	}
	assert.Zero(t, calls())
	assert.Equal(t, before, dump(s.sn))
	assert.Equal(t, pool, s.datasets())
	s.view("look", "base", maxSizeLabel("lots")) // a view is read-only, so the label is ignored

	s.prepare("web", "base")
	_, err := s.sn.Update(s.ctx, snapshots.Info{Name: "web", Labels: map[string]string{snapshots.LabelSnapshotMaxSize: "lots"}})
	assert.ErrorIs(t, err, errdefs.ErrInvalidArgument)
	s.requireInvariants()
}

// The commit of a container with a quota has none, nor do snapshots on it.
func TestCommitDropsQuota(t *testing.T) {
	t.Parallel()
	for what, option := range map[string]func(*fixture){"atomic": func(*fixture) {}, "in steps": inSteps} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t, option)
			s.prepare("web", "", maxSizeLabel("1000"))
			s.write("web", "w;w;")
			s.commit("saved", "web")
			assert.Empty(t, s.refquota(s.templateOf("saved")))
			s.prepare("next", "saved")
			assert.Empty(t, s.refquota(s.dataset("next")))
			s.prepare("small", "saved", maxSizeLabel("10"))
			assert.Equal(t, "14", s.refquota(s.dataset("small")))
			s.requireInvariants()
		})
	}
}

// A template is measured once, because it never changes. If that fails, nothing is created.
func TestTemplateIsMeasuredOnceForQuota(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.layer("base", "", "b;")
	s.cleanup()
	before := dump(s.sn)
	measured := s.pool.Count(zfsfake.Before(zfsfake.Space))
	s.pool.FailAt(zfsfake.Before(zfsfake.Space), zfsfake.Refuse(zfs.ErrSuspended), zfsfake.Once())
	require.ErrorIs(t, second(s.sn.Prepare(s.ctx, "web", "base", maxSizeLabel("1"))), errdefs.ErrUnavailable)
	assert.Equal(t, before, dump(s.sn))
	for i := range 3 {
		s.prepare(fmt.Sprint("web", i), "base", maxSizeLabel("1"))
	}
	assert.Equal(t, 2, measured())
	s.requireInvariants()
}

// New rejects a quota that is too large.
func TestConfiguredQuotaIsChecked(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.with = func(c *Config) { c.Quota = 1 << 63 }
	assert.ErrorIs(t, s.tryStart(), errdefs.ErrInvalidArgument)
}
