package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/plugin"
)

// one serializes runs, because a run writes to variables of package cli.
var one sync.Mutex

// run returns the command's standard output.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, _, err := runApart(t, args...)
	return out, err
}

// runApart returns the command's standard output and standard error.
func runApart(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	one.Lock()
	defer one.Unlock()
	var out, errs bytes.Buffer
	a := app()
	a.Writer, a.ErrWriter = &out, &errs
	err = a.RunContext(t.Context(), append([]string{"zfstpl"}, args...))
	return out.String(), errs.String(), err
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestPropertiesAreNameAndValue(t *testing.T) {
	t.Parallel()
	got, err := properties([]string{"compression=zstd", "recordsize=", "sharenfs=a=b,c d"})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"compression": "zstd", "recordsize": "", "sharenfs": "a=b,c d"}, got)
	got, err = properties(nil)
	require.NoError(t, err)
	assert.Empty(t, got)
	for word, says := range map[string]string{
		"": "NAME=VALUE", "compression": "NAME=VALUE", "=zstd": "NAME=VALUE", "mountpoint=/x": "--root",
		"canmount=on": "sets this property itself", "zfstpl:version=2": "sets this property itself", "com.sun:auto-snapshot=true": "sets this property itself",
	} {
		got, err := properties([]string{"atime=off", word})
		assert.ErrorContains(t, err, says, "%q", word)
		assert.Nil(t, got)
	}
}

func TestConfigContainerdUsesFileAndFlags(t *testing.T) {
	t.Parallel()
	configured := file(t, "dataset = 'tank/z'\nroot = '/srv/z'\naddress = '/run/z/z.sock'\n")
	empty := file(t, "")
	for what, c := range map[string]struct {
		args          []string
		root, address string
		key           string
	}{
		"the defaults":    {[]string{"--config", empty}, plugin.DefaultRoot, plugin.DefaultAddress, "io.containerd.cri.v1.images"},
		"a file":          {[]string{"--config", configured}, "/srv/z", "/run/z/z.sock", "io.containerd.cri.v1.images"},
		"flags":           {[]string{"--config", configured, "--root", "/r", "--address", "/a"}, "/r", "/a", "io.containerd.cri.v1.images"},
		"for version 1.7": {[]string{"--config", configured, "--config-version", "2"}, "/srv/z", "/run/z/z.sock", "io.containerd.grpc.v1.cri"},
	} {
		out, err := run(t, append([]string{"config", "containerd"}, c.args...)...)
		require.NoError(t, err, what)
		var parsed struct {
			ProxyPlugins map[string]struct {
				Type, Address string
				Exports       map[string]string
			} `toml:"proxy_plugins"`
			Plugins map[string]any
		}
		require.NoError(t, toml.Unmarshal([]byte(out), &parsed), "%s:\n%s", what, out)
		assert.Equal(t, c.address, parsed.ProxyPlugins["zfstpl"].Address, what)
		assert.Equal(t, c.root, parsed.ProxyPlugins["zfstpl"].Exports["root"], what)
		assert.Contains(t, parsed.Plugins, c.key, what)
	}
}

// The warning is on standard error, because standard output is containerd's configuration.
func TestConfigWarnsIfContainerdIsUnreachable(t *testing.T) {
	t.Parallel()
	for address, warns := range map[string]bool{filepath.Join(t.TempDir(), "none.sock"): true, "": false} {
		configured := file(t, "containerd_address = '"+address+"'\n")
		out, errs, err := runApart(t, "config", "containerd", "--config", configured)
		require.NoError(t, err)
		assert.NotContains(t, out, "containerd_address")
		if !warns {
			assert.Empty(t, errs)
			continue
		}
		assert.Equal(t, 1, strings.Count(errs, "\n"), "one line: %s", errs)
		assert.Contains(t, errs, "containerd_address "+address)
		assert.Contains(t, errs, "set containerd_address in "+configured)
	}
}

// Without --config-version the configuration is for the containerd in PATH.
func TestConfigIsForTheInstalledContainerd(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for says, key := range map[string]string{
		"containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+deb13u1": "io.containerd.grpc.v1.cri",
		"containerd containerd.io v2.1.5 fcd43222d6b07379a4be9786bda52438f0dd16a1":    "io.containerd.cri.v1.images",
	} {
		script := fmt.Sprintf("#!/bin/sh\necho '%s'\n", says)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "containerd"), []byte(script), 0o755))
		out, err := run(t, "config", "containerd", "--config", file(t, ""))
		require.NoError(t, err)
		assert.Contains(t, out, key, says)
	}
}

// A unit must not take an error for "no cleanup is due".
func TestCheckExitsWith255OnError(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none")
	for what, args := range map[string][]string{
		"no such file": {"--config", none},
		"no dataset":   {"--config", file(t, "")},
		"unknown key":  {"--config", file(t, "datset = 'tank/z'\n")},
		"bad value":    {"--config", file(t, "dataset = 'tank/z'\n[cache]\npressure_percent = 101\n")},
		"two modes":    {"--config", file(t, "dataset = 'tank/z'\n"), "--if-needed"},
		"a base":       {"--config", file(t, "dataset = 'tank/z'\n"), "tank/y"},
	} {
		_, err := run(t, append([]string{"cleanup", "--check"}, args...)...)
		assert.ErrorAs(t, err, &notKnown{}, what)
	}
}

func TestCommandsRefuseInvalidArguments(t *testing.T) {
	t.Parallel()
	empty := file(t, "")
	none := filepath.Join(t.TempDir(), "none")
	for what, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown command":       {[]string{"destroy-all"}, `no command "destroy-all"`},
		"unknown flag":          {[]string{"ls", "--colour"}, "colour"},
		"no such file":          {[]string{"ls", "--config", none}, none},
		"unknown key":           {[]string{"ls", "--config", file(t, "x = 1")}, `"x"`},
		"ls without a dataset":  {[]string{"ls", "--config", empty}, "no dataset is configured"},
		"ls of a base":          {[]string{"ls", "tank/z"}, `unexpected argument "tank/z"`},
		"df of a base":          {[]string{"df", "tank/z"}, "--dataset"},
		"dry run of a base":     {[]string{"cleanup", "tank/z", "--dry-run"}, "--dataset"},
		"check and stop":        {[]string{"cleanup", "--config", file(t, "dataset = 'tank/z'"), "--check", "--stop"}, "exclude each other"},
		"all of no dry run":     {[]string{"cleanup", "--config", file(t, "dataset = 'tank/z'"), "--all"}, "need --dry-run"},
		"stop after a base":     {[]string{"cleanup", "tank/z", "--stop"}, "--dataset"},
		"config of a base":      {[]string{"config", "containerd", "tank/z"}, "--dataset"},
		"ls of a bad one":       {[]string{"ls", "--config", empty, "--dataset", "a b"}, "a b"},
		"init without one":      {[]string{"init", "--config", empty}, "no dataset is configured"},
		"init of a bad one":     {[]string{"init", "--config", empty, "tank/../x"}, "tank/../x"},
		"init of two":           {[]string{"init", "--config", empty, "tank/a", "tank/b"}, "tank/b"},
		"init, options after":   {[]string{"init", "--config", empty, "tank/a", "--root", "x"}, `"x"`},
		"init, relative root":   {[]string{"init", "--config", empty, "--root", "x", "tank/a"}, `"x"`},
		"init with mountpoint":  {[]string{"init", "--config", empty, "-o", "mountpoint=/x", "tank/a"}, "--root"},
		"config, bad version":   {[]string{"config", "containerd", "--config", empty, "--config-version", "1"}, "version 2"},
		"config, bad address":   {[]string{"config", "containerd", "--config", empty, "--address", "/a\"b"}, "cannot contain"},
		"config, bad dataset":   {[]string{"config", "containerd", "--config", file(t, "dataset = 'tank//z'")}, "tank//z"},
		"config, relative root": {[]string{"config", "containerd", "--config", empty, "--root", "srv"}, "srv"},
	} {
		out, err := run(t, c.args...)
		if assert.ErrorContains(t, err, c.says, what) {
			assert.NotContains(t, err.Error(), "\n", what)
		}
		assert.NotContains(t, out, "proxy_plugins", what)
	}
}

func TestVersionAndHelpArePrinted(t *testing.T) {
	t.Parallel()
	for arg, says := range map[string]string{"--version": plugin.Version(), "--help": "init", "": "init"} {
		var args []string
		if arg != "" {
			args = []string{arg}
		}
		out, err := run(t, args...)
		require.NoError(t, err)
		assert.Contains(t, out, says)
	}
}
