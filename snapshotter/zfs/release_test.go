package zfs

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReleaseIsTheOlderOfModuleAndCommands(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]Release{
		"zfs-next\nzfs-kmod-next\n":                         {},
		"zfs-2.4.4-1~bpo13+1\nzfs-kmod-2.4.4-1~bpo13+1\n":   {2, 4},
		"zfs-2.3.2-2\nzfs-kmod-2.4.4-1\n":                   {2, 3},
		"zfs-2.4.4-1\nzfs-kmod-2.1.11-1\n":                  {2, 1},
		"zfs-2.4.0-rc1_12_gabcdef0\nzfs-kmod-2.4.0-rc1_1\n": {2, 4},
		"": {},
	} {
		got, err := releaseOf("tank", []byte(out))
		if want == (Release{}) {
			assert.Error(t, err, out)
			continue
		}
		require.NoError(t, err, out)
		assert.Equal(t, want, got, out)
	}
	assert.True(t, Release{2, 4}.AtLeast(Release{2, 3}))
	assert.True(t, Release{3, 0}.AtLeast(Release{2, 3}))
	assert.False(t, Release{2, 2}.AtLeast(Release{2, 3}))
}

func TestFeaturesAndAltrootAreParsed(t *testing.T) {
	t.Parallel()
	f := newFake(t,
		result{Match: "feature@large_dnode,feature@lz4_compress,feature@new POOL$", Out: "feature@large_dnode\tdisabled\nfeature@lz4_compress\tactive\nfeature@new\tenabled\n"},
		result{Match: "altroot POOL$", Out: "altroot\t/mnt/a b\n"})
	features, err := f.client(true).Features(t.Context(), "large_dnode", "lz4_compress", "new")
	require.NoError(t, err)
	assert.Equal(t, map[string]bool{"large_dnode": false, "lz4_compress": true, "new": true}, features)
	altroot, err := f.client(true).Altroot(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "/mnt/a b", altroot)

	f = newFake(t, result{Match: "altroot", Out: "altroot\t-\n"})
	altroot, err = f.client(true).Altroot(t.Context())
	require.NoError(t, err)
	assert.Empty(t, altroot)
}

func TestSetNativeMountsNothing(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^set"})
	c := f.client(true)
	require.NoError(t, c.SetNative(t.Context(), f.pool+"/a", map[string]string{"mountpoint": "legacy", "canmount": "off"}))
	assert.Equal(t, []string{"set", "-u", "canmount=off", "mountpoint=legacy", f.pool + "/a"}, f.calls(t)[0].Args)
	assertKind(t, ErrInvalid, c.SetNative(t.Context(), "other/a", nil))
	assertKind(t, ErrInvalid, c.SetNative(t.Context(), f.pool+"/-a", nil))
}

func TestPropertiesOfParsesSources(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "name,property,source,value exec,a:b POOL/a POOL/b$", Out: "POOL/a\texec\tlocal\ton\nPOOL/a\ta:b\tinherited from POOL\tx\nPOOL/b\texec\tdefault\ton\n"})
	got, err := f.client(true).PropertiesOf(t.Context(), []string{f.pool + "/a", f.pool + "/b"}, []string{"exec", "a:b"})
	require.NoError(t, err)
	assert.Equal(t, map[string]map[string]Property{
		f.pool + "/a": {"exec": {Value: "on", Local: true}, "a:b": {Value: "x"}},
		f.pool + "/b": {"exec": {Value: "on"}},
	}, got)
	_, err = f.client(true).PropertiesOf(t.Context(), []string{"-x"}, []string{"exec"})
	assertKind(t, ErrInvalid, err)
}
