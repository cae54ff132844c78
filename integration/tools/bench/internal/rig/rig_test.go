//go:build linux

package rig

import (
	"strings"
	"testing"
	"time"

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
		{Plugin: "zfstpl", Dataset: "pool/base"},
		{Plugin: "log-only", Address: "/run/x/log-only.sock"},
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
		switch {
		case s.Address != "":
			assert.Equal(t, map[string]any{"log-only": map[string]any{"type": "snapshot", "address": s.Address}}, config.Proxies)
		case s.Dataset != "":
			assert.Equal(t, map[string]any{"dataset": s.Dataset}, config.Plugins[id])
			assert.Empty(t, config.Proxies)
		case s.Daemon != nil:
			assert.Equal(t, map[string]any{"type": "snapshot", "address": "/run/x/d.run/zfstpl.sock"}, config.Proxies["zfstpl"])
		default:
			assert.Equal(t, map[string]any{"root_path": "/a b"}, config.Plugins[id])
		}
	}
}

func TestRunUntilOutputDoesNotCountWhatFollowsTheFirstOutput(t *testing.T) {
	began := time.Now()
	took, err := runUntilOutput(t.Context(), "sh", "-c", "echo first; sleep 1; echo second")
	require.NoError(t, err)
	assert.Positive(t, took)
	assert.Less(t, took, time.Since(began)-time.Second/2)
	_, err = runUntilOutput(t.Context(), "true")
	require.ErrorContains(t, err, "no output")
	_, err = runUntilOutput(t.Context(), "sh", "-c", "echo first; exit 3")
	require.ErrorContains(t, err, "exit status 3")
}
