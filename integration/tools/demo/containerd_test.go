//go:build linux

package main

import (
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/require"
)

func TestConfigVersion(t *testing.T) {
	for text, want := range map[string]int{
		"containerd github.com/containerd/containerd/v2 2.4.2 \n":                3,
		"containerd github.com/containerd/containerd/v2 v2.1.0 abc":              3,
		"containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+b4": 2,
		"containerd github.com/containerd/containerd v1.7.35+unknown ":           2,
	} {
		got, err := configVersion(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	_, err := configVersion("containerd github.com/containerd/containerd/v2 unknown")
	require.Error(t, err)
}

func TestConfigurationIsTOML(t *testing.T) {
	text := configuration(3, "[proxy_plugins.zfstpl]\n  type = \"snapshot\"\n")
	var got struct {
		Version  int                          `toml:"version"`
		Disabled []string                     `toml:"disabled_plugins"`
		Proxies  map[string]map[string]string `toml:"proxy_plugins"`
	}
	require.NoError(t, toml.Unmarshal([]byte(text), &got))
	require.Equal(t, 3, got.Version)
	require.Equal(t, disabled, got.Disabled)
	require.Equal(t, "snapshot", got.Proxies["zfstpl"]["type"])
}
