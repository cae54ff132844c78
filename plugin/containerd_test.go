package plugin

import (
	"maps"
	"runtime"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// at returns the value at a path of keys in parsed TOML.
func at(t *testing.T, value any, keys ...string) any {
	t.Helper()
	for _, key := range keys {
		table, ok := value.(map[string]any)
		require.True(t, ok, "%q is not in a table", key)
		require.Contains(t, slices.Collect(maps.Keys(table)), key)
		value = table[key]
	}
	return value
}

func TestContainerdConfigIsTOML(t *testing.T) {
	t.Parallel()
	for _, version := range []int{ContainerdConfig2, ContainerdConfig3} {
		text, err := ContainerdConfig(version, "/run/my socket/ä's.sock", "/var/lib/z", true)
		require.NoError(t, err)
		var parsed map[string]any
		require.NoError(t, toml.Unmarshal([]byte(text), &parsed), text)
		proxy := at(t, parsed, "proxy_plugins", "zfstpl")
		assert.Equal(t, "snapshot", at(t, proxy, "type"))
		assert.Equal(t, "/run/my socket/ä's.sock", at(t, proxy, "address"))
		assert.Equal(t, "/var/lib/z", at(t, proxy, "exports", "root"))
		assert.NotContains(t, text, "snapshot_annotations", "containerd sends the label snapshot.ref without it")
		assert.NotContains(t, text, "rebase", "it is not implemented")
		if version == ContainerdConfig2 {
			assert.NotContains(t, text, "remap-ids", "containerd 1.7 does not idmap mounts")
			assert.Equal(t, "zfstpl", at(t, parsed, "plugins", "io.containerd.grpc.v1.cri", "containerd", "snapshotter"))
			continue
		}
		assert.Equal(t, []any{"remap-ids"}, at(t, proxy, "capabilities"))
		assert.Equal(t, "zfstpl", at(t, parsed, "plugins", "io.containerd.cri.v1.images", "snapshotter"))
		unpack := at(t, parsed, "plugins", "io.containerd.transfer.v1.local", "unpack_config").([]any)
		require.Len(t, unpack, 2, "the table replaces containerd's own")
		for i, name := range []string{"zfstpl", "overlayfs"} {
			assert.Equal(t, name, at(t, unpack[i], "snapshotter"))
			assert.Equal(t, "linux/"+runtime.GOARCH, at(t, unpack[i], "platform"))
		}
	}
}

// A daemon without a containerd serves no differ, and containerd cannot unpack with a
// differ that does not exist.
func TestContainerdConfigWithoutDifferNamesNone(t *testing.T) {
	t.Parallel()
	for _, version := range []int{ContainerdConfig2, ContainerdConfig3} {
		text, err := ContainerdConfig(version, "/a", "/r", false)
		require.NoError(t, err)
		var parsed map[string]any
		require.NoError(t, toml.Unmarshal([]byte(text), &parsed), text)
		assert.NotContains(t, text, "differ")
		assert.NotContains(t, text, "zfstpl-diff")
	}
}

func TestContainerdConfigRefusesInvalidValues(t *testing.T) {
	t.Parallel()
	for _, version := range []int{-1, 0, 1, 4} {
		_, err := ContainerdConfig(version, "/a", "/r", true)
		assert.Error(t, err, version)
	}
	for _, path := range []string{`/a"b`, `/a\b`, "/a\nb", "/a\"\n[plugins]\nx = \"", "/a\rb", "/a\x00b", "/a\x1b[2J", "/a\x7fb", "/a\xff"} {
		for _, version := range []int{ContainerdConfig2, ContainerdConfig3} {
			text, err := ContainerdConfig(version, path, "/r", true)
			assert.Error(t, err, "address %q", path)
			assert.Empty(t, text)
			_, err = ContainerdConfig(version, "/a", path, true)
			assert.Error(t, err, "root %q", path)
		}
	}
}

// A containerd with the plugin and without its configuration starts without it.
func TestBuiltInPluginWithoutDatasetIsSkipped(t *testing.T) {
	t.Parallel()
	var found *plugin.Registration
	for _, r := range registry.Graph(func(*plugin.Registration) bool { return false }) {
		if r.Type == plugins.SnapshotPlugin && r.ID == "zfstpl" {
			found = &r
		}
	}
	require.NotNil(t, found)
	config := found.Config.(*Config)
	assert.Equal(t, DefaultConfig(), *config)
	_, err := initPlugin(&plugin.InitContext{Context: t.Context(), Config: config})
	assert.ErrorIs(t, err, plugin.ErrSkipPlugin)
	_, err = initPlugin(&plugin.InitContext{Context: t.Context(), Config: "what"})
	assert.Error(t, err)
	_, err = initPlugin(&plugin.InitContext{Context: t.Context(), Config: &Config{Dataset: "-r"}})
	assert.Error(t, err)
	assert.NotErrorIs(t, err, plugin.ErrSkipPlugin, "an invalid configuration is an error")
}

func TestContainerdIsOldReportsVersion1(t *testing.T) {
	t.Parallel()
	for says, old := range map[string]bool{
		"containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+deb13u1\n": true,
		"containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da\n":    true,
		"containerd github.com/containerd/containerd v1.7.28 b98a3a\n":                  true,
		"containerd github.com/containerd/containerd/v2 2.4.2 \n":                       false,
		"containerd containerd.io v2.1.5 fcd43222d6b07379a4be9786bda52438f0dd16a1\n":    false,
		"containerd github.com/containerd/containerd/v2 v2.1.7 \n":                      false,
		"": false,
	} {
		assert.Equal(t, old, ContainerdIsOld(says), says)
	}
}
