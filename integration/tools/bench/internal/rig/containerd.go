//go:build linux

package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/contender"
)

// Snapshotter says what a containerd has to use.
type Snapshotter struct {
	// Plugin is the snapshotter's name in containerd.
	Plugin string
	// Root is the directory of one of containerd's own.
	Root string
	// Daemon is one of ours, instead.
	Daemon *Daemon
	// Address is the socket of another proxy snapshotter, instead.
	Address string
	// Dataset is the base of a zfstpl that is compiled into containerd, instead.
	Dataset string
}

// Containerd is a containerd that has one snapshotter.
type Containerd struct {
	*Service
	rig     *Rig
	name    string
	plugin  string
	address string
	Client  *client.Client
}

// snapshotters are those that containerd has of its own.
var snapshotters = []string{"blockfile", "btrfs", "devmapper", "erofs", "native", "overlayfs", "zfs"}

// unneeded are plugins that take time to start or touch what is not ours.
var unneeded = []string{
	"io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
	"io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart",
	"io.containerd.monitor.container.v1.restart", "io.containerd.nri.v1.nri",
	"io.containerd.podsandbox.controller.v1.podsandbox",
}

// StartContainerd starts a containerd for one contender. Its own files are on
// ext4, for every contender.
func (r *Rig) StartContainerd(ctx context.Context, name string, s Snapshotter) (*Containerd, error) {
	c := &Containerd{rig: r, name: name, plugin: s.Plugin, address: r.containerdSocket(name)}
	config := r.Path(name + ".toml")
	if err := os.WriteFile(config, []byte(s.config()), 0o600); err != nil {
		return nil, err
	}
	var err error
	c.Service, err = r.start(ctx, name+".ctd", s.program(), "--config", config, "--log-level", "warn",
		"--root", r.Path("ext4", "containerd-"+name), "--state", r.Path(name+".state"), "--address", c.address)
	if err != nil {
		return nil, err
	}
	if c.Client, err = client.New(c.address); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	r.onClose(func() error { return errors.Join(c.Client.Close(), c.Stop()) })
	return c, nil
}

// program is the containerd that has the snapshotter.
func (s Snapshotter) program() string {
	if s.Dataset != "" {
		return BuiltinProgram
	}
	return "containerd"
}

// BuiltinProgram is a containerd with zfstpl compiled in.
const BuiltinProgram = "containerd-builtin"

// containerdSocket is where the containerd of a contender serves.
func (r *Rig) containerdSocket(name string) string { return r.Path(name + ".ctd.sock") }

// config is a configuration in which nothing is collected but when asked for:
// a collection of its own would fall into a measurement.
func (s Snapshotter) config() string {
	var b strings.Builder
	b.WriteString("version = 3\ndisabled_plugins = [\n")
	for _, id := range unneeded {
		fmt.Fprintf(&b, "  %q,\n", id)
	}
	for _, name := range snapshotters {
		if name != s.Plugin {
			fmt.Fprintf(&b, "  %q,\n", "io.containerd.snapshotter.v1."+name)
		}
	}
	b.WriteString("]\n[plugins.\"io.containerd.gc.v1.scheduler\"]\n  pause_threshold = 0.000001\n  mutation_threshold = 0\n")
	switch {
	case s.Address != "":
		fmt.Fprintf(&b, "[proxy_plugins.%s]\n  type = \"snapshot\"\n  address = %q\n", s.Plugin, s.Address)
	case s.Dataset != "":
		fmt.Fprintf(&b, "[plugins.\"io.containerd.snapshotter.v1.%s\"]\n  dataset = %q\n", s.Plugin, s.Dataset)
		fmt.Fprintf(&b, "[plugins.\"io.containerd.service.v1.diff-service\"]\n  default = [%q, \"walking\"]\n", s.Plugin)
	case s.Daemon != nil:
		fmt.Fprintf(&b, "[proxy_plugins.%s]\n  type = \"snapshot\"\n  address = %q\n", s.Plugin, s.Daemon.socket())
		fmt.Fprintf(&b, "[proxy_plugins.%s-diff]\n  type = \"diff\"\n  address = %q\n", s.Plugin, s.Daemon.socket())
		fmt.Fprintf(&b, "[plugins.\"io.containerd.service.v1.diff-service\"]\n  default = [%q, \"walking\"]\n", s.Plugin+"-diff")
	default:
		fmt.Fprintf(&b, "[plugins.\"io.containerd.snapshotter.v1.%s\"]\n  root_path = %q\n", s.Plugin, s.Root)
	}
	return b.String()
}

// Through is the contender's snapshotter behind containerd.
func (c *Containerd) Through(count func(context.Context) (int, error)) *contender.Through {
	return &contender.Through{
		Snapshotter: c.Client.SnapshotService(c.plugin),
		Collect:     contender.Collector(c.Client),
		Count:       count,
	}
}

// Snapshots is the contender's snapshotter behind containerd.
func (c *Containerd) Snapshots() snapshots.Snapshotter { return c.Client.SnapshotService(c.plugin) }

// Layer makes a layer of what an active snapshot changed, as 'nerdctl commit'
// does.
func (c *Containerd) Layer(ctx context.Context, key string) error {
	_, err := rootfs.CreateDiff(ctx, key, c.Snapshots(), c.Client.DiffService(), diff.WithMediaType(ocispec.MediaTypeImageLayerGzip))
	return err
}

// Extract is contender.Contender.Extract of a contender with this containerd.
func (c *Containerd) Extract(to *contender.Through) func(context.Context) (func(context.Context, bool) error, string, error) {
	seed := byte(0)
	return func(ctx context.Context) (func(context.Context, bool) error, string, error) {
		seed++
		layer, err := contender.WriteLayer(ctx, c.Client.ContentStore(), seed)
		if err != nil {
			return nil, "", err
		}
		x, err := to.NewExtraction(ctx, layer)
		if err != nil {
			return nil, "", err
		}
		return func(ctx context.Context, syncFS bool) error {
			if err := x.Apply(ctx, c.Client.DiffService(), syncFS); err != nil {
				return err
			}
			return x.Commit(ctx)
		}, x.Name, nil
	}
}

// Unpack imports an image for RunContainer.
func (c *Containerd) Unpack(ctx context.Context, archive string) error {
	return contender.Unpack(ctx, c.Client, archive, c.plugin)
}

// RemoveImages removes every image, and what only they needed.
func (c *Containerd) RemoveImages(ctx context.Context) error {
	list, err := c.Client.ImageService().List(ctx)
	if err != nil {
		return err
	}
	for _, image := range list {
		if err := c.Client.ImageService().Delete(ctx, image.Name); err != nil {
			return err
		}
	}
	return contender.Collector(c.Client)(ctx)
}

// RunContainer returns a function that runs a container of the image as a
// person would: with ctr.
func (c *Containerd) RunContainer(image string, args ...string) func(context.Context, string) error {
	return func(ctx context.Context, id string) error {
		// A container that has begun is not interrupted: it takes no time, and
		// would leave a process.
		_, err := Run(context.WithoutCancel(ctx), c.ctrRun(image, id, args...)...)
		return err
	}
}

// FirstOutput returns a function that runs a container as RunContainer does and returns
// the time until the container's first output.
func (c *Containerd) FirstOutput(image string, args ...string) func(context.Context, string) (time.Duration, error) {
	return func(ctx context.Context, id string) (time.Duration, error) {
		return runUntilOutput(context.WithoutCancel(ctx), c.ctrRun(image, id, args...)...)
	}
}

func (c *Containerd) ctrRun(image, id string, args ...string) []string {
	return append([]string{"ctr", "--address", c.address, "--namespace", contender.Namespace, "run", "--rm",
		"--fifo-dir", c.rig.Path("fifo"), "--snapshotter", c.plugin, image, id}, args...)
}
