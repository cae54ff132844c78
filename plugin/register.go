package plugin

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// init registers the plugin of a containerd that imports this package:
//
//	[plugins."io.containerd.snapshotter.v1.zfstpl"]
//	  dataset = "tank/zfstpl"
func init() {
	registry.Register(&plugin.Registration{
		Type:   plugins.SnapshotPlugin,
		ID:     "zfstpl",
		Config: func() *Config { c := DefaultConfig(); return &c }(),
		InitFn: initPlugin,
	})
}

func initPlugin(ic *plugin.InitContext) (any, error) {
	config, ok := ic.Config.(*Config)
	if !ok {
		return nil, fmt.Errorf("zfstpl: the configuration has type %T", ic.Config)
	}
	if config.Dataset == "" {
		return nil, fmt.Errorf("zfstpl: no dataset is configured: set 'dataset' in the plugin's table: %w", plugin.ErrSkipPlugin)
	}
	if state := ic.Properties[plugins.PropertyStateDir]; state != "" {
		config.Address = filepath.Join(state, "zfstpl.sock") // for MountDir only: no socket is served
	}
	instance, err := openFor(ic.Context, *config, "in containerd")
	if errors.Is(err, zfs.ErrUnavailable) {
		return nil, fmt.Errorf("%w: %w", err, plugin.ErrSkipPlugin)
	}
	if err != nil {
		return nil, err
	}
	ic.Meta.Platforms = append(ic.Meta.Platforms, platforms.DefaultSpec())
	ic.Meta.Exports["root"] = instance.Root
	ic.Meta.Capabilities = append(ic.Meta.Capabilities, remapIDs)
	return instance, nil
}
