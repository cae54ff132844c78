package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/log"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/snapshotter"
)

// started runs the command, one at a time, because a run writes to variables of package
// cli.
func started(t *testing.T, action cli.ActionFunc, args ...string) (output string, err error) {
	t.Helper()
	one.Lock()
	defer one.Unlock()
	var out bytes.Buffer
	a := app()
	a.Writer, a.ErrWriter = &out, &out
	if action != nil {
		a.Action = action
	}
	err = a.RunContext(t.Context(), append([]string{"containerd-zfstpl-grpc"}, args...))
	return out.String(), err
}

var one sync.Mutex

// configured runs the daemon until it has its configuration, and returns that.
func configured(t *testing.T, args ...string) (config plugin.Config, err error) {
	t.Helper()
	_, err = started(t, func(c *cli.Context) (err error) {
		config, err = configuration(c)
		return err
	}, args...)
	return config, err
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// keysOf returns the settings of a configuration file, named like flags.
func keysOf(t reflect.Type, prefix string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		key := prefix + strings.ReplaceAll(f.Tag.Get("toml"), "_", "-")
		if isTable := f.Type.Kind() == reflect.Struct && f.Type.Field(0).Tag.Get("toml") != ""; isTable {
			keys = append(keys, keysOf(f.Type, key+"-")...)
		} else {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestEverySettingIsAFlag(t *testing.T) {
	t.Parallel()
	known := make(map[string]bool)
	for _, f := range flags() {
		known[f.Names()[0]] = true
	}
	keys := keysOf(reflect.TypeFor[plugin.Config](), "")
	require.Contains(t, keys, "cache-keep")
	for _, key := range keys {
		assert.True(t, known[key], "there is no --%s", key)
		delete(known, key)
	}
	delete(known, "config")
	assert.Empty(t, known, "flags without a setting")
}

// A flag overrides the file, and the file overrides the defaults.
func TestFlagOverridesTheFile(t *testing.T) {
	t.Parallel()
	path := file(t, "dataset = 'tank/f'\nroot = '/f'\naddress = '/f.sock'\nlog_level = 'warn'\ncache.keep = '1h'\n")
	config, err := configured(t, "--config", path)
	require.NoError(t, err)
	assert.Equal(t, "tank/f /f /f.sock warn", strings.Join([]string{config.Dataset, config.Root, config.Address, config.LogLevel}, " "))
	assert.Equal(t, "1h0m0s", keep(t, config))

	config, err = configured(t, "-c", path, "--dataset", "tank/a", "--root", "/a", "--address", "/a.sock", "--log-level", "debug", "--cache-keep", "forever")
	require.NoError(t, err)
	assert.Equal(t, "tank/a /a /a.sock debug", strings.Join([]string{config.Dataset, config.Root, config.Address, config.LogLevel}, " "))
	assert.Equal(t, "forever", keep(t, config))

	config, err = configured(t, "-c", path, "--root", "", "--cache-keep", "0s")
	require.NoError(t, err)
	assert.Empty(t, config.Root, "an empty flag counts as given")
	assert.Equal(t, "0s", keep(t, config))
	assert.Equal(t, "tank/f", config.Dataset)
	config, err = configured(t, "-c", file(t, ""))
	require.NoError(t, err)
	assert.Equal(t, plugin.DefaultConfig(), config)
	assert.Equal(t, plugin.DefaultCacheKeep.String(), keep(t, config))
}

func TestSnapshotterFlagsOverrideTheFile(t *testing.T) {
	t.Parallel()
	path := file(t, "share_layers_across_namespaces = false\nreuse_layers = 'off'\nforeign_snapshots = 'destroy'\ncontainer_quota = '1GiB'\nzfs_client = 'command'\ncache.max_bytes = '1KiB'\ncache.pressure_percent = 0\ncleanup.mode = 'manual'\n")
	for what, c := range map[string]struct {
		args []string
		want string
	}{
		"defaults": {[]string{"-c", file(t, "")}, "true auto keep 0 auto 0 80 gc"},
		"a file":   {[]string{"-c", path}, "false off destroy 1073741824 command 1024 0 manual"},
		"flags over a file": {[]string{"-c", path, "--share-layers-across-namespaces", "--reuse-layers=fetch", "--foreign-snapshots", "keep", "--container-quota", "2KiB", "--zfs-client", "native", "--cache-max-bytes", "0", "--cache-pressure-percent", "90", "--cleanup-mode", "background"},
			"true fetch keep 2048 native 0 90 background"},
		"flags over the defaults": {[]string{"-c", file(t, ""), "--share-layers-across-namespaces=false", "--reuse-layers", "skip", "--foreign-snapshots", "destroy", "--container-quota", "5", "--cache-max-bytes=3", "--cache-pressure-percent=0"},
			"false skip destroy 5 auto 3 0 gc"},
		"no quota after all": {[]string{"-c", path, "--container-quota", ""}, "false off destroy 0 command 1024 0 manual"},
	} {
		config, err := configured(t, c.args...)
		require.NoError(t, err, what)
		assert.Equal(t, c.want+"\n", fmt.Sprintln(config.ShareLayers, config.ReuseLayers, config.ForeignSnapshots, config.ContainerQuota.Bytes, config.ZFSClient,
			config.Cache.MaxBytes.Bytes, config.Cache.Pressure, config.Cleanup.Mode), what)
	}
}

func TestNamespaceFlagsAreMergedWithTheFile(t *testing.T) {
	t.Parallel()
	path := file(t, "[reuse_layers_in]\n'k8s.io' = 'off'\nmoby = 'skip'\n")
	config, err := configured(t, "-c", path, "--reuse-layers-in", "moby=fetch", "--reuse-layers-in", "default=auto")
	require.NoError(t, err)
	assert.Equal(t, map[string]snapshotter.ReuseMode{"k8s.io": "off", "moby": "fetch", "default": "auto"}, config.ReuseLayersIn)
	assert.Equal(t, snapshotter.ReuseAuto, config.ReuseLayers)
}

func keep(t *testing.T, config plugin.Config) string {
	t.Helper()
	text, err := config.Cache.Keep.MarshalText()
	require.NoError(t, err)
	return string(text)
}

func TestConfigurationRefusesInvalidFlags(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none")
	for what, c := range map[string]struct {
		args []string
		says string
	}{
		"no file":      {[]string{"--config", none}, none},
		"bad file":     {[]string{"--config", file(t, "colour = 'blue'")}, "colour"},
		"bad duration": {[]string{"--config", file(t, ""), "--cache-keep", "a week"}, "a week"},
		"bad size":     {[]string{"--config", file(t, ""), "--container-quota", "10 gigs"}, "--container-quota: \"10 gigs\""},
		"bad switch":   {[]string{"--config", file(t, ""), "--share-layers-across-namespaces=maybe"}, "share-layers-across-namespaces"},
		"no mode":      {[]string{"--config", file(t, ""), "--reuse-layers-in", "moby"}, "NAMESPACE=MODE"},
		"unknown flag": {[]string{"--colour", "blue"}, "colour"},
		"no value":     {[]string{"--dataset"}, "dataset"},
	} {
		_, err := configured(t, c.args...)
		assert.ErrorContains(t, err, c.says, what)
	}
}

// run refuses these before it needs root or ZFS.
func TestRunRefusesInvalidSettings(t *testing.T) {
	t.Parallel()
	empty := file(t, "")
	level := log.GetLevel()
	for what, c := range map[string]struct {
		args []string
		says string
	}{
		"an argument":    {[]string{"tank/zfstpl"}, `unexpected argument "tank/zfstpl"`},
		"a word":         {[]string{"-c", empty, "help"}, `unexpected argument "help"`},
		"no dataset":     {[]string{"-c", empty}, "no dataset is configured"},
		"a bad dataset":  {[]string{"-c", empty, "--dataset", "a b"}, "a b"},
		"a bad level":    {[]string{"-c", empty, "--dataset", "tank", "--log-level", "loud"}, "loud"},
		"a bad policy":   {[]string{"-c", empty, "--dataset", "tank", "--foreign-snapshots", "delete"}, "delete"},
		"a bad mode":     {[]string{"-c", empty, "--dataset", "tank", "--reuse-layers", "yes"}, `reuse_layers: "yes"`},
		"a bad mode, in": {[]string{"-c", empty, "--dataset", "tank", "--reuse-layers-in", "k8s.io=yes"}, `reuse_layers_in."k8s.io": "yes"`},
		"a mode, in no":  {[]string{"-c", empty, "--dataset", "tank", "--reuse-layers-in", "=off"}, "name of a namespace is empty"},
		"a bad address":  {[]string{"-c", empty, "--dataset", "tank", "--address", "x.sock"}, "x.sock"},
		"a bad root":     {[]string{"-c", empty, "--dataset", "tank", "--root", "x"}, `"x"`},
		"a bad duration": {[]string{"-c", empty, "--dataset", "tank", "--cache-keep", "-1h"}, "-1h"},
	} {
		_, err := started(t, nil, c.args...)
		require.ErrorContains(t, err, c.says, what)
		assert.NotContains(t, err.Error(), "\n", what)
	}
	assert.Equal(t, level, log.GetLevel(), "a refused configuration is not applied")
}

func TestVersionAndHelpArePrinted(t *testing.T) {
	t.Parallel()
	for arg, says := range map[string]string{"--version": plugin.Version(), "--help": "--cache-keep"} {
		out, err := started(t, nil, arg)
		require.NoError(t, err)
		assert.Contains(t, out, says)
		assert.Contains(t, out, "containerd-zfstpl-grpc")
	}
}

// A daemon that is stopped while it opens its base ends without an error.
func TestCancelledStartIsNoError(t *testing.T) {
	t.Parallel()
	one.Lock()
	defer one.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	args := []string{"containerd-zfstpl-grpc", "--config", file(t, ""), "--dataset", "nosuchpool/z"}
	require.Error(t, app().RunContext(ctx, args))
	cancel()
	require.NoError(t, app().RunContext(ctx, args))
}
