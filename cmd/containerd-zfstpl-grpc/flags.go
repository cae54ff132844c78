package main

import (
	"encoding"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/zfstpl/zfstpl/plugin"
	"github.com/zfstpl/zfstpl/snapshotter"
)

// flags returns the flags of the daemon. Every setting of the configuration file has one,
// which overrides it.
func flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Value: plugin.DefaultConfigFile, Usage: "configuration `FILE`"},
		&cli.StringFlag{Name: "dataset", Usage: "base `DATASET`, created by 'zfstpl init'"},
		&cli.StringFlag{Name: "root", Usage: "`DIR` where the base is mounted (default: its mountpoint property)"},
		&cli.StringFlag{Name: "address", Usage: "unix `SOCKET` to serve on (default: " + plugin.DefaultAddress + ")"},
		&cli.StringFlag{Name: "containerd-address", Usage: "unix `SOCKET` of the containerd that may use the snapshots (default: " + plugin.DefaultContainerd + "; '' for any process and no diff service)"},
		&cli.StringFlag{Name: "log-level", Usage: "`LEVEL`: trace, debug, info, warn or error (default: info)"},
		&cli.StringFlag{Name: "zfs-client", Usage: "ZFS `CLIENT`: auto, native or command (default: auto)"},
		&cli.StringFlag{Name: "mounts", Usage: "how clients mount active snapshots: `FORM` auto, bind or zfs (default: auto)"},
		&cli.BoolFlag{Name: "share-layers-across-namespaces", Value: true, Usage: "let namespaces share the layers that they have in common"},
		&cli.StringFlag{Name: "reuse-layers", Usage: "how a pull handles a layer that is in the pool: `MODE` auto, fetch, skip or off (default: auto)"},
		&cli.StringSliceFlag{Name: "reuse-layers-in", Usage: "the same for one containerd namespace: `NAMESPACE=MODE`; may be repeated"},
		&cli.StringFlag{Name: "foreign-snapshots", Usage: "how a cleanup handles garbage that has foreign snapshots: `POLICY` keep or destroy (default: keep)"},
		&cli.StringFlag{Name: "container-quota", Usage: "what a container can add to its image: a `SIZE` such as 10GiB, or 0 for no limit (default: 0)"},
		&cli.IntFlag{Name: "ready-runtimes", Value: plugin.DefaultReadyRuntimes, Usage: "the most `RUNTIMES` that are made in advance for containers; 0 for none"},
		&cli.StringFlag{Name: "cache-keep", Usage: "how long an unused layer stays cached: a `DURATION`, 0s or forever (default: 168h)"},
		&cli.StringFlag{Name: "cache-max-bytes", Usage: "space of all cached layers together: a `SIZE` such as 50GiB, or 0 for no limit (default: 0)"},
		&cli.IntFlag{Name: "cache-pressure-percent", Value: plugin.DefaultCachePressure, Usage: "use of the pool or of a quota, in `PERCENT`, above which cached layers are evicted; 0 for never"},
		&cli.StringFlag{Name: "cleanup-mode", Usage: "when garbage is destroyed: `MODE` gc, background or manual (default: gc)"},
	}
}

// configuration returns the settings of the configuration file, which may be missing
// unless it was named, overridden by the flags.
func configuration(c *cli.Context) (plugin.Config, error) {
	config, err := plugin.LoadConfig(c.String("config"), !c.IsSet("config"))
	if err != nil {
		return config, err
	}
	for name, setting := range map[string]*string{
		"dataset": &config.Dataset, "root": &config.Root, "address": &config.Address,
		"containerd-address": &config.ContainerdAddress, "log-level": &config.LogLevel,
		"zfs-client": (*string)(&config.ZFSClient), "mounts": (*string)(&config.Mounts),
		"reuse-layers": (*string)(&config.ReuseLayers), "foreign-snapshots": (*string)(&config.ForeignSnapshots),
		"cleanup-mode": (*string)(&config.Cleanup.Mode),
	} {
		if c.IsSet(name) {
			*setting = c.String(name)
		}
	}
	if c.IsSet("share-layers-across-namespaces") {
		config.ShareLayers = c.Bool("share-layers-across-namespaces")
	}
	if c.IsSet("ready-runtimes") {
		config.ReadyRuntimes = c.Int("ready-runtimes")
	}
	if c.IsSet("cache-pressure-percent") {
		config.Cache.Pressure = c.Int("cache-pressure-percent")
	}
	for _, text := range c.StringSlice("reuse-layers-in") {
		namespace, mode, ok := strings.Cut(text, "=")
		if !ok {
			return config, fmt.Errorf("--reuse-layers-in: %q is not NAMESPACE=MODE", text)
		}
		if config.ReuseLayersIn == nil {
			config.ReuseLayersIn = make(map[string]snapshotter.ReuseMode)
		}
		config.ReuseLayersIn[namespace] = snapshotter.ReuseMode(mode)
	}
	for name, setting := range map[string]encoding.TextUnmarshaler{"container-quota": &config.ContainerQuota, "cache-keep": &config.Cache.Keep, "cache-max-bytes": &config.Cache.MaxBytes} {
		if !c.IsSet(name) {
			continue
		}
		if err := setting.UnmarshalText([]byte(c.String(name))); err != nil {
			return config, fmt.Errorf("--%s: %w", name, err)
		}
	}
	return config, nil
}
