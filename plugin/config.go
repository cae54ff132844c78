package plugin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Defaults of settings.
const (
	DefaultConfigFile    = "/etc/zfstpl/config.toml"
	DefaultRoot          = "/var/lib/zfstpl"
	DefaultAddress       = "/run/zfstpl/zfstpl.sock"
	DefaultCacheKeep     = 168 * time.Hour
	DefaultCachePressure = 80 // percent
	DefaultReadyRuntimes = 64
	DefaultContainerd    = "/run/containerd/containerd.sock"
)

// maxReadyRuntimes limits ready_runtimes: each of them is mounted.
const maxReadyRuntimes = 1000

// Config are the settings of a snapshotter and its daemon.
type Config struct {
	// Dataset is the base, such as "tank/zfstpl". There is no default.
	Dataset string `toml:"dataset"`
	// Root is where the base is mounted. Empty: where its mountpoint property says.
	Root string `toml:"root"`
	// Address is the daemon's unix socket, in a directory of its own.
	Address string `toml:"address"`
	// ContainerdAddress is containerd's own socket. Only the containerd that serves it
	// may use the snapshots, and the diff service stores layers in its content store.
	// Empty: any process may use the snapshots, and there is no diff service.
	ContainerdAddress string `toml:"containerd_address"`
	// LogLevel is trace, debug, info, warn, error, fatal or panic.
	LogLevel string `toml:"log_level"`
	// ZFSClient selects the ZFS client: auto, native or command.
	ZFSClient zfs.Choice `toml:"zfs_client"`
	// Mounts selects how clients mount active snapshots: auto, bind or zfs.
	Mounts snapshotter.MountForm `toml:"mounts"`
	// ShareLayers lets containerd namespaces share the templates of layers that they
	// have in common.
	ShareLayers bool `toml:"share_layers_across_namespaces"`
	// ReuseLayers selects how a pull handles a layer that is in the pool: auto, fetch,
	// skip or off.
	ReuseLayers snapshotter.ReuseMode `toml:"reuse_layers"`
	// ReuseLayersIn is ReuseLayers of single containerd namespaces.
	ReuseLayersIn map[string]snapshotter.ReuseMode `toml:"reuse_layers_in"`
	// ForeignSnapshots selects how a cleanup handles garbage that has foreign
	// snapshots: keep or destroy.
	ForeignSnapshots snapshotter.ForeignPolicy `toml:"foreign_snapshots"`
	// ContainerQuota limits what a container can add to its image: a size such as
	// "10GiB", or "0" for no limit. The label containerd.io/snapshot/max-size overrides
	// it.
	ContainerQuota Size `toml:"container_quota"`
	// ReadyRuntimes is the most runtimes that are made in advance for containers; 0 for none.
	ReadyRuntimes int     `toml:"ready_runtimes"`
	Cache         Cache   `toml:"cache"`
	Cleanup       Cleanup `toml:"cleanup"`
}

// Cleanup is the table of settings for garbage.
type Cleanup struct {
	// Mode selects when it is destroyed: gc, background or manual.
	Mode snapshotter.CleanupMode `toml:"mode"`
}

// Cache is the table of settings for cached templates.
type Cache struct {
	// Keep is how long an unused template is kept: a duration such as "168h", "0s" for
	// no cache, or "forever".
	Keep Duration `toml:"keep"`
	// MaxBytes limits the space of all cached templates together: a size such as
	// "50GiB", or "0" for no limit.
	MaxBytes Size `toml:"max_bytes"`
	// Pressure is the use of the pool, or of a quota of the base, in percent, above
	// which cached templates are evicted, the least recently used first. 0 disables it.
	Pressure int `toml:"pressure_percent"`
}

// Duration is a time.Duration with a text form, which may be "forever". It is a struct
// so that a number without a unit is refused instead of read as nanoseconds.
type Duration struct{ time.Duration }

// UnmarshalText parses a duration that is not negative, or "forever".
func (d *Duration) UnmarshalText(text []byte) error {
	if string(text) == "forever" {
		*d = Duration{snapshotter.KeepForever}
		return nil
	}
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration: use a value such as \"168h\" or \"0s\", or \"forever\"", text)
	}
	*d = Duration{v}
	return nil
}

// MarshalText is the reverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) {
	if d.Duration == snapshotter.KeepForever {
		return []byte("forever"), nil
	}
	return []byte(d.String()), nil
}

// DefaultConfig returns the configuration that a configuration file overrides.
func DefaultConfig() Config {
	return Config{
		Address:           DefaultAddress,
		ContainerdAddress: DefaultContainerd,
		LogLevel:          "info",
		ZFSClient:         zfs.Auto,
		Mounts:            snapshotter.MountAuto,
		ShareLayers:       true,
		ReuseLayers:       snapshotter.ReuseAuto,
		ForeignSnapshots:  snapshotter.KeepForeign,
		ReadyRuntimes:     DefaultReadyRuntimes,
		Cache:             Cache{Keep: Duration{DefaultCacheKeep}, Pressure: DefaultCachePressure},
		Cleanup:           Cleanup{Mode: snapshotter.CleanupGC},
	}
}

// LoadConfig reads a configuration file over the defaults. The error for an unknown key
// names its line. If optional is true, a file that does not exist leaves the defaults.
func LoadConfig(path string, optional bool) (Config, error) {
	config := DefaultConfig()
	file, err := os.Open(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return config, nil
	}
	if err != nil {
		return config, fmt.Errorf("configuration: %w", err)
	}
	defer file.Close()
	err = toml.NewDecoder(file).DisallowUnknownFields().Decode(&config)
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		first := unknown.Errors[0]
		line, _ := first.Position()
		key := strings.Join(first.Key(), ".")
		err := fmt.Errorf("configuration: %s:%d: unknown key %q", path, line, key)
		if now := successors[key]; now != "" {
			err = fmt.Errorf("%w: it is now %s", err, now)
		}
		return config, err
	}
	if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := wrong.Position()
		return config, fmt.Errorf("configuration: %s:%d: %w", path, line, wrong)
	}
	if err != nil {
		return config, fmt.Errorf("configuration: %s: %w", path, err)
	}
	if len(config.ReuseLayersIn) == 0 {
		config.ReuseLayersIn = nil // an empty table is as good as no table
	}
	return config, nil
}

// successors has, for each setting of an older release, the text that replaces it.
var successors = map[string]string{
	"warm":            "[cache] with keep, max_bytes and pressure_percent",
	"warm.keep":       "cache.keep",
	"warm.max_bytes":  "cache.max_bytes",
	"warm.pressure":   "cache.pressure_percent",
	"cache.pressure":  "cache.pressure_percent",
	"quota":           "container_quota",
	"share_templates": "share_layers_across_namespaces",
	"revive":          `reuse_layers = "auto", "fetch", "skip" (for true) or "off" (for false)`,
}

// Check returns the base, or an error for the first invalid setting.
func (c Config) Check() (layout.Base, error) {
	if c.Dataset == "" {
		return layout.Base{}, fmt.Errorf("no dataset is configured: set 'dataset' in %s or give --dataset, such as tank/zfstpl", DefaultConfigFile)
	}
	base, err := layout.ParseBase(c.Dataset)
	if err != nil {
		return base, err
	}
	if c.Root != "" && !filepath.IsAbs(c.Root) {
		return base, fmt.Errorf("root: %q is not an absolute path", c.Root)
	}
	if !filepath.IsAbs(c.Address) {
		return base, fmt.Errorf("address: %q is not the absolute path of a unix socket", c.Address)
	}
	if c.ContainerdAddress != "" && !filepath.IsAbs(c.ContainerdAddress) {
		return base, fmt.Errorf("containerd_address: %q is not the absolute path of a unix socket", c.ContainerdAddress)
	}
	switch c.LogLevel {
	case "trace", "debug", "info", "warn", "error", "fatal", "panic":
	default:
		return base, fmt.Errorf("log_level: %q is not one of trace, debug, info, warn, error, fatal, panic", c.LogLevel)
	}
	if err := c.ZFSClient.Check(); err != nil {
		return base, fmt.Errorf("zfs_client: %w", err)
	}
	if err := c.Mounts.Check(); err != nil {
		return base, fmt.Errorf("mounts: %w", err)
	}
	if err := c.checkReuse(); err != nil {
		return base, err
	}
	if err := c.ForeignSnapshots.Check(); err != nil {
		return base, fmt.Errorf("foreign_snapshots: %w", err)
	}
	if err := c.Cleanup.Mode.Check(); err != nil {
		return base, fmt.Errorf("cleanup.mode: %w", err)
	}
	if n := c.ReadyRuntimes; n < 0 || n > maxReadyRuntimes {
		return base, fmt.Errorf("ready_runtimes: %d is not a number from 0 to %d", n, maxReadyRuntimes)
	}
	if p := c.Cache.Pressure; p < 0 || p > 100 {
		return base, fmt.Errorf("cache.pressure_percent: %d is not a percentage from 1 to 100, or 0 for never", p)
	}
	return base, nil
}

func (c Config) checkReuse() error {
	if err := c.ReuseLayers.Check(); err != nil {
		return fmt.Errorf("reuse_layers: %w", err)
	}
	for namespace, mode := range c.ReuseLayersIn {
		if namespace == "" {
			return errors.New("reuse_layers_in: the name of a namespace is empty")
		}
		if err := mode.Check(); err != nil {
			return fmt.Errorf("reuse_layers_in.%q: %w", namespace, err)
		}
	}
	return nil
}
