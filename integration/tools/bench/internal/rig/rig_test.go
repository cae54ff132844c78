//go:build linux

package rig

import (
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseMemory(t *testing.T) {
	m, err := parseMemory(strings.NewReader("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t7\n"))
	require.NoError(t, err)
	assert.Equal(t, Memory{Resident: 1 << 20, Peak: 2 << 20}, m)
	_, err = parseMemory(strings.NewReader("Name:\tx\n"))
	require.ErrorContains(t, err, "VmRSS")
}

func TestConfigHasOneSnapshotter(t *testing.T) {
	for _, s := range []Snapshotter{
		{Plugin: "overlayfs", Root: "/a b"},
		{Plugin: "zfstpl", Daemon: &Daemon{rig: &Rig{dir: "/run/x"}, name: "d"}},
	} {
		var config struct {
			Version  int
			Disabled []string       `toml:"disabled_plugins"`
			Plugins  map[string]any `toml:"plugins"`
			Proxies  map[string]any `toml:"proxy_plugins"`
		}
		require.NoError(t, toml.Unmarshal([]byte(s.config()), &config))
		assert.Equal(t, 3, config.Version)
		id := "io.containerd.snapshotter.v1." + s.Plugin
		assert.NotContains(t, config.Disabled, id)
		assert.Contains(t, config.Disabled, "io.containerd.snapshotter.v1.zfs")
		if s.Daemon != nil {
			assert.Equal(t, map[string]any{"type": "snapshot", "address": "/run/x/d.run/zfstpl.sock"}, config.Proxies["zfstpl"])
		} else {
			assert.Equal(t, map[string]any{"root_path": "/a b"}, config.Plugins[id])
		}
	}
}
