package setup

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
	"github.com/zfstpl/zfstpl/snapshotter/zfs/zfsfake"
)

func testBase(t testing.TB) layout.Base {
	t.Helper()
	base, err := layout.ParseBase("tank/z")
	require.NoError(t, err)
	return base
}

func TestInitSetsOnlySupportedProperties(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		release  zfs.Release
		features []string // that the pool does not have
		has      map[string]string
		lacks    []string
	}{
		"2.4": {zfs.Release{}, nil, map[string]string{"normalization": "none", "utf8only": "off", "casesensitivity": "sensitive",
			"snapdir": "disabled", "dnodesize": "auto", "compression": "lz4", "longname": "off", "defaultuserquota": "none", "sharenfs": "off"}, nil},
		"2.3": {zfs.Release{Major: 2, Minor: 3}, nil, map[string]string{"snapdir": "disabled", "longname": "off"}, []string{"defaultuserquota"}},
		"2.2": {zfs.Release{Major: 2, Minor: 2}, nil, map[string]string{"snapdir": "hidden"}, []string{"longname"}},
		"GRUB": {zfs.Release{}, []string{"large_dnode", "longname"}, map[string]string{"compression": "lz4"},
			[]string{"dnodesize", "longname"}},
		"no features": {zfs.Release{}, []string{"large_dnode", "longname", "lz4_compress"}, map[string]string{"compression": "on"},
			[]string{"dnodesize", "longname"}},
	} {
		p := zfsfake.New(t)
		p.Edit(func(s *zfsfake.State) { s.Release, s.Lacks = c.release, c.features })
		_, err := Init(t.Context(), p, testBase(t), "/srv", nil)
		require.NoError(t, err, what)
		native := p.Now().FS["tank/z"].Native
		for name, value := range c.has {
			assert.Equal(t, value, native[name], "%s: %s", what, name)
		}
		for _, name := range c.lacks {
			assert.NotContains(t, native, name, what)
		}
	}
}

// ZFS accepts normalization only with utf8only=on or without utf8only.
func TestInitLeavesUTF8OnlyToNormalization(t *testing.T) {
	t.Parallel()
	p := zfsfake.New(t)
	_, err := Init(t.Context(), p, testBase(t), "/srv", map[string]string{"normalization": "formC", "snapdir": "visible"})
	require.NoError(t, err)
	native := p.Now().FS["tank/z"].Native
	assert.Equal(t, "formC", native["normalization"])
	assert.NotContains(t, native, "utf8only")
	assert.Equal(t, "visible", native["snapdir"])
}

func TestHarmsNameTheFix(t *testing.T) {
	t.Parallel()
	p, base := zfsfake.New(t), testBase(t)
	_, err := Init(t.Context(), p, base, "/srv", nil)
	require.NoError(t, err)
	found, err := Harms(t.Context(), p, base)
	require.NoError(t, err)
	assert.Empty(t, found, "a new base has no harmful property")

	set := func(dataset, property, value string) {
		p.EditFS(dataset, func(fs *zfsfake.FS) { fs.Native[property] = value })
	}
	set("tank/z", "sharenfs", "rw=@10.0.0.0/8")
	set("tank/z", "snapdir", "hidden")
	set("tank/z", "normalization", "formD")
	set("tank/z", "xattr", "dir")
	set("tank/z", "atime", "on")
	set("tank/z/runtime", "exec", "off")
	set("tank/z/storage/empty", "utf8only", "on")
	set("tank/z/storage/empty", "defaultuserquota", "1048576")
	set("tank/z/storage", "defaultuserquota", "1048576")
	found, err = Harms(t.Context(), p, base)
	require.NoError(t, err)
	fixes := make(map[string]string)
	for _, h := range found {
		fixes[h.Property+" "+h.Dataset] = h.Fix
		assert.NotEmpty(t, h.Effect)
	}
	createAnother := "it can only be set at creation: create another base with 'zfstpl init' and use it instead of tank/z"
	assert.Equal(t, map[string]string{
		"sharenfs tank/z":                       "zfs set sharenfs=off tank/z",
		"snapdir tank/z":                        "zfs set snapdir=disabled tank/z",
		"normalization tank/z":                  createAnother,
		"utf8only tank/z/storage/empty":         createAnother,
		"exec tank/z/runtime":                   "zfs inherit exec tank/z/runtime",
		"defaultuserquota tank/z/storage/empty": "zfs set defaultuserquota=none tank/z/storage/empty",
	}, fixes)
	p.Edit(func(s *zfsfake.State) { s.Release = zfs.Release{Major: 2, Minor: 2} })
	found, err = Harms(t.Context(), p, base)
	require.NoError(t, err)
	for _, h := range found {
		assert.NotEqual(t, "snapdir", h.Property, "this release supports no better value than hidden")
	}
}
