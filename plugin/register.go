package plugin

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/zfstpl/zfstpl/snapshotter/diff"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// init registers the snapshotter and the differ of a containerd that imports this package:
//
//	[plugins."io.containerd.snapshotter.v1.zfstpl"]
//	  dataset = "tank/zfstpl"
func init() {
	registry.Register(&plugin.Registration{
		Type:   plugins.SnapshotPlugin,
		ID:     "zfstpl",
		Config: new(DefaultConfig()),
		InitFn: initPlugin,
	})
	registry.Register(&plugin.Registration{
		Type:     plugins.DiffPlugin,
		ID:       "zfstpl",
		Requires: []plugin.Type{plugins.SnapshotPlugin, plugins.MetadataPlugin, plugins.LeasePlugin},
		InitFn:   initDiffer,
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

// initDiffer returns the differ of a containerd that has zfstpl built in.
func initDiffer(ic *plugin.InitContext) (any, error) {
	sn, err := ic.GetByID(plugins.SnapshotPlugin, "zfstpl")
	if err != nil {
		return nil, fmt.Errorf("zfstpl: the differ needs the snapshotter: %w: %w", err, plugin.ErrSkipPlugin)
	}
	instance, ok := sn.(*Instance)
	if !ok {
		return nil, errors.New("zfstpl: another snapshotter is registered as zfstpl")
	}
	metadata, err := ic.GetSingle(plugins.MetadataPlugin)
	if err != nil {
		return nil, err
	}
	// An interface and not containerd's own type, which would link its database into the
	// daemon.
	stores, ok := metadata.(interface{ ContentStore() content.Store })
	if !ok {
		return nil, errors.New("zfstpl: containerd's metadata has no content store")
	}
	manager, err := ic.GetByID(plugins.LeasePlugin, "manager")
	if err != nil {
		return nil, err
	}
	lease, ok := manager.(leases.Manager)
	if !ok {
		return nil, errors.New("zfstpl: containerd's plugin lease.manager is not a lease manager")
	}
	ic.Meta.Platforms = append(ic.Meta.Platforms, platforms.DefaultSpec())
	return instance.Differ(diff.Contents{Store: stores.ContentStore(), Leases: lease}), nil
}
