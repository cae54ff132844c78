package plugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestLoadConfigReadsOverTheDefaults(t *testing.T) {
	t.Parallel()
	with := func(change func(c *Config)) Config {
		c := DefaultConfig()
		change(&c)
		return c
	}
	for text, want := range map[string]Config{
		"":                            DefaultConfig(),
		"# nothing\n":                 DefaultConfig(),
		`dataset = "tank/zfstpl"`:     with(func(c *Config) { c.Dataset = "tank/zfstpl" }),
		"[cache]\nkeep = \"1h30m\"\n": with(func(c *Config) { c.Cache.Keep = Duration{90 * time.Minute} }),
		"[cache]\n":                   DefaultConfig(),
		"share_layers_across_namespaces = false\n": with(func(c *Config) { c.ShareLayers = false }),
		"reuse_layers = 'off'\n":                   with(func(c *Config) { c.ReuseLayers = snapshotter.ReuseOff }),
		"[reuse_layers_in]\n":                      DefaultConfig(),
		"[reuse_layers_in]\n'k8s.io' = 'fetch'\nmoby = 'auto'\n": with(func(c *Config) {
			c.ReuseLayersIn = map[string]snapshotter.ReuseMode{"k8s.io": snapshotter.ReuseFetch, "moby": snapshotter.ReuseAuto}
		}),
		"container_quota = '1KiB'\n": with(func(c *Config) { c.ContainerQuota = Size{1024} }),
		"container_quota = 1024\n":   with(func(c *Config) { c.ContainerQuota = Size{1024} }),
		"container_quota = ''\n":     DefaultConfig(),
		"dataset = 'd'\nroot = '/r'\naddress = '/a'\ncontainerd_address = '/c'\nlog_level = 'debug'\nzfs_client = 'command'\nmounts = 'zfs'\nshare_layers_across_namespaces = false\n" +
			"reuse_layers = 'skip'\nreuse_layers_in.moby = 'fetch'\nforeign_snapshots = 'destroy'\ncontainer_quota = '10GiB'\nready_runtimes = 3\ncache.keep = 'forever'\ncache.max_bytes = '50GiB'\ncache.pressure_percent = 90\ncleanup.mode = 'manual'\n": {
			Dataset: "d", Root: "/r", Address: "/a", ContainerdAddress: "/c", LogLevel: "debug", ZFSClient: zfs.Command, Mounts: snapshotter.MountZFS,
			ReuseLayers: snapshotter.ReuseSkip, ReuseLayersIn: map[string]snapshotter.ReuseMode{"moby": snapshotter.ReuseFetch},
			ForeignSnapshots: snapshotter.DestroyForeign, ContainerQuota: Size{10 << 30}, ReadyRuntimes: 3, Cache: Cache{Duration{snapshotter.KeepForever}, Size{50 << 30}, 90},
			Cleanup: Cleanup{snapshotter.CleanupManual}},
	} {
		config, err := LoadConfig(write(t, text), false)
		require.NoError(t, err, text)
		assert.Equal(t, want, config, text)
	}
}

// A misspelt setting without effect would be worse than an error. The error names the
// line.
func TestLoadConfigIsStrict(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		text string
		says []string
	}{
		"unknown key":           {"dataset = 'tank'\n\ndatset = 'tank'\n", []string{":3:", `"datset"`}},
		"unknown table":         {"[cold]\nkeep = '1h'\n", []string{"cold"}},
		"unknown key in one":    {"[cache]\n\n\nkep = '1h'\n", []string{":4:", `"cache.kep"`}},
		"wrong case":            {"log-level = 'info'\n", []string{":1:", `"log-level"`}},
		"number for a string":   {"\ndataset = 5\n", []string{":2:"}},
		"string for a table":    {"\n\ncache = '168h'\n", []string{":3:"}},
		"list for a string":     {"root = ['/']\n", []string{":1:"}},
		"bad duration":          {"[cache]\nkeep = 'a week'\n", []string{":2:", `"a week"`, "168h"}},
		"duration without unit": {"[cache]\nkeep = '168'\n", []string{":2:", `"168"`}},
		"number for duration":   {"[cache]\nkeep = 168\n", []string{`"168"`, "168h"}},
		"negative duration":     {"[cache]\nkeep = '-1h'\n", []string{":2:", `"-1h"`}},
		"string for a switch":   {"share_layers_across_namespaces = 'no'\n", []string{":1:"}},
		"an old switch":         {"\nrevive = true\n", []string{":2:", `"revive"`, "reuse_layers", `"skip"`}},
		"the old table":         {"[warm]\nkeep = '1h'\n", []string{":1:", `"warm"`, "[cache]"}},
		"an old dotted key":     {"warm.pressure = 80\n", []string{":1:", `"warm`, "cache"}},
		"the old quota":         {"quota = '1GiB'\n", []string{":1:", `"quota"`, "container_quota"}},
		"the old sharing":       {"share_templates = true\n", []string{":1:", `"share_templates"`, "share_layers_across_namespaces"}},
		"the old pressure":      {"[cache]\npressure = 80\n", []string{":2:", `"cache.pressure"`, "cache.pressure_percent"}},
		"switch for a mode":     {"reuse_layers = false\n", []string{":1:"}},
		"mode for a table":      {"reuse_layers_in = 'off'\n", []string{":1:"}},
		"a name without quotes": {"[reuse_layers_in]\nk8s.io = 'off'\n", []string{":2:"}},
		"number for a switch":   {"\nshare_layers_across_namespaces = 0\n", []string{":2:"}},
		"text for a percentage": {"[cache]\npressure_percent = '80%'\n", []string{":2:"}},
		"bad size of the cache": {"[cache]\nmax_bytes = '-1'\n", []string{":2:", `"-1"`}},
		"bad size":              {"\ncontainer_quota = '10 gigabytes'\n", []string{":2:", `"10 gigabytes"`, "10GiB"}},
		"negative size":         {"container_quota = -1\n", []string{`"-1"`}},
		"fraction of a size":    {"container_quota = 1.5\n", []string{`"1.5"`}},
		"no TOML":               {"dataset = 'tank'\nroot\n", []string{":2:"}},
		"a key twice":           {"root = '/a'\nroot = '/b'\n", []string{"root"}},
		"unterminated":          {"root = '/a", []string{":1:"}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			path := write(t, c.text)
			_, err := LoadConfig(path, false)
			require.Error(t, err)
			for _, says := range append(c.says, path) {
				assert.ErrorContains(t, err, says)
			}
			assert.NotContains(t, err.Error(), "\n", "one line")
		})
	}
}

func TestLoadConfigWithoutFileReturnsTheDefaults(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none.toml")
	config, err := LoadConfig(none, true)
	require.NoError(t, err)
	assert.Equal(t, DefaultConfig(), config)
	_, err = LoadConfig(none, false)
	assert.ErrorContains(t, err, none, "a file that was named must exist")
	_, err = LoadConfig(t.TempDir(), true)
	assert.Error(t, err, "a directory is not a missing file")
}

func TestCheckRefusesInvalidSettings(t *testing.T) {
	t.Parallel()
	good := DefaultConfig()
	good.Dataset, good.Address = "tank/zfstpl", "/run/x.sock"
	base, err := good.Check()
	require.NoError(t, err)
	assert.Equal(t, "tank/zfstpl", base.String())
	for what, c := range map[string]struct {
		change func(c *Config)
		says   string
	}{
		"no dataset":          {func(c *Config) { c.Dataset = "" }, "--dataset"},
		"bad dataset":         {func(c *Config) { c.Dataset = "tank/a b" }, "tank/a b"},
		"an option":           {func(c *Config) { c.Dataset = "-r" }, "-r"},
		"relative root":       {func(c *Config) { c.Root = "var/lib" }, "var/lib"},
		"relative address":    {func(c *Config) { c.Address = "x.sock" }, "x.sock"},
		"relative containerd": {func(c *Config) { c.ContainerdAddress = "c.sock" }, "containerd_address"},
		"no address":          {func(c *Config) { c.Address = "" }, "address"},
		"bad level":           {func(c *Config) { c.LogLevel = "loud" }, "loud"},
		"no level":            {func(c *Config) { c.LogLevel = "" }, "level"},
		"level in capital":    {func(c *Config) { c.LogLevel = "INFO" }, "INFO"},
		"bad client":          {func(c *Config) { c.ZFSClient = "magic" }, "magic"},
		"unknown mode":        {func(c *Config) { c.Cleanup.Mode = "often" }, `cleanup.mode: "often" is not one of gc, background, manual`},
		"negative pressure":   {func(c *Config) { c.Cache.Pressure = -1 }, "cache.pressure_percent: -1"},
		"too much pressure":   {func(c *Config) { c.Cache.Pressure = 101 }, "cache.pressure_percent: 101"},
		"bad policy":          {func(c *Config) { c.ForeignSnapshots = "delete" }, `foreign_snapshots: "delete"`},
	} {
		config := good
		c.change(&config)
		_, err := config.Check()
		assert.ErrorContains(t, err, c.says, what)
	}
	for _, level := range []string{"trace", "debug", "info", "warn", "error", "fatal", "panic"} {
		config := good
		config.Root, config.LogLevel = "/srv/", level
		_, err := config.Check()
		assert.NoError(t, err, level)
	}
}

func TestDurationTextRoundTrips(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"168h": 168 * time.Hour, "0s": 0, "0": 0, "1h30m": 90 * time.Minute, "1ns": 1, "forever": snapshotter.KeepForever,
	} {
		var d Duration
		require.NoError(t, d.UnmarshalText([]byte(text)), text)
		assert.Equal(t, want, d.Duration, text)
		back, err := d.MarshalText()
		require.NoError(t, err)
		var again Duration
		require.NoError(t, again.UnmarshalText(back), "%q", back)
		assert.Equal(t, d, again, "%q", back)
	}
	for _, text := range []string{"", "-1ns", "-1h", "168", "1d", "Forever", "never", "1h\n", "9999999h9999999h"} {
		d := Duration{42}
		assert.Error(t, d.UnmarshalText([]byte(text)), "%q", text)
		assert.Equal(t, Duration{42}, d, "%q changed the value", text)
	}
}

func TestSizeTextRoundTrips(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{
		"": 0, "0": 0, "00": 0, "0GiB": 0, "1": 1, "1000": 1000, "1KiB": 1 << 10, "10MiB": 10 << 20, "10GiB": 10 << 30, "1TiB": 1 << 40,
		"9223372036854775807": 1<<63 - 1, "8388607TiB": 8388607 << 40,
	} {
		var s Size
		require.NoError(t, s.UnmarshalText([]byte(text)), text)
		assert.Equal(t, want, s.Bytes, text)
		back, err := s.MarshalText()
		require.NoError(t, err)
		var again Size
		require.NoError(t, again.UnmarshalText(back), "%q", back)
		assert.Equal(t, s, again, "%q", back)
	}
	for _, text := range []string{
		"-1", "+1", "1 ", " 1", "1 GiB", "1GB", "1G", "1gib", "1.5GiB", "1e3", "GiB", "none", "0x10", "1_000", "1GiB\n",
		"9223372036854775808", "8388608TiB", "99999999999999999999999",
	} {
		s := Size{42}
		assert.Error(t, s.UnmarshalText([]byte(text)), "%q", text)
		assert.Equal(t, Size{42}, s, "%q changed the value", text)
	}
}

// A configuration that is written as TOML, as containerd does with its plugins'
// settings, reads back unchanged.
func TestConfigRoundTrips(t *testing.T) {
	t.Parallel()
	for _, keep := range []time.Duration{0, time.Hour, snapshotter.KeepForever} {
		config := Config{Dataset: "tank", Root: "/r", Address: "/a", LogLevel: "warn", ZFSClient: zfs.Native,
			ReuseLayers: snapshotter.ReuseSkip, ReuseLayersIn: map[string]snapshotter.ReuseMode{"k8s.io": snapshotter.ReuseFetch},
			ForeignSnapshots: snapshotter.DestroyForeign, ContainerQuota: Size{3 << 20}, Cache: Cache{Duration{keep}, Size{1 << 30}, 70}}
		text, err := toml.Marshal(config)
		require.NoError(t, err)
		again, err := LoadConfig(write(t, string(text)), false)
		require.NoError(t, err, "%s", text)
		assert.Equal(t, config, again, "%s", text)
	}
}

func TestVersionIsNotEmpty(t *testing.T) {
	t.Parallel()
	assert.NotEmpty(t, strings.TrimSpace(Version()))
}
