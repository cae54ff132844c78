//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"

	"github.com/zfstpl/zfstpl/integration/testimage"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/contender"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/rig"
)

const imageName = "docker.io/zfstpl/bench:1"

// most is how many clones those have whose operations do not become slower with
// more, or so much slower that it would take hours.
const most = 500

// A maker sets up a contender.
type maker struct {
	name string
	// chosen is set if the contender takes part only where it is chosen.
	chosen bool
	make   func(context.Context, *bench, string) (*contender.Contender, error)
}

// flag is what --only calls it: what stands in for btrfs goes by its name.
func (m maker) flag() string {
	if m.name == report.OverlayBtrfs {
		return report.Btrfs
	}
	return m.name
}

func makers() []maker {
	btrfs := maker{name: report.Btrfs, make: makeBtrfs}
	if has, err := rig.HasBtrfs(); err != nil || !has {
		btrfs = maker{name: report.OverlayBtrfs, make: overlayOn("btrfs")}
	}
	return []maker{
		{name: report.Native, make: zfstplBy("native", 0)},
		{name: report.ZFSMounts, chosen: true, make: zfstplBy("native", most, "--mounts", "zfs")},
		{name: report.Builtin, chosen: true, make: makeBuiltin},
		{name: report.Command, make: zfstplBy("command", most)},
		{name: report.ZFSPlugin, make: makeZFSPlugin},
		{name: report.OverlayZFS, make: makeOverlayZFS},
		{name: report.OverlayExt4, make: overlayOn("ext4")},
		btrfs,
		{name: report.Socket, make: makeSocket("")},
		{name: report.Before, chosen: true, make: func(ctx context.Context, b *bench, name string) (*contender.Contender, error) {
			return makeSocket(b.before)(ctx, b, name)
		}},
		{name: report.Floor, make: makeFloor},
		{name: report.EmptyProxy, chosen: true, make: makeProxy()},
		{name: report.LogOnly, chosen: true, make: makeProxy("--log")},
	}
}

// setUp makes the contenders that were chosen, all of them where none was.
func (b *bench) setUp(ctx context.Context) error {
	program, err := exec.LookPath("app")
	if err != nil {
		return err
	}
	b.image = b.rig.Path("image.tar")
	if err := testimage.Write(b.image, imageName, program); err != nil {
		return err
	}
	for _, m := range makers() {
		if len(b.only) > 0 && !slices.Contains(b.only, m.flag()) || len(b.only) == 0 && m.chosen {
			continue
		}
		c, err := m.make(ctx, b, m.name)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		c.Name = m.name
		if err := c.MakeTemplate(ctx, contender.WriteTemplate); err != nil {
			return fmt.Errorf("the template of %s: %w", m.name, err)
		}
		if err := b.add(ctx, c); err != nil {
			return err
		}
		b.say("%s is there", m.name)
	}
	if len(b.entrants) == 0 {
		return fmt.Errorf("no such contender: there are %v", names)
	}
	return nil
}

// behindContainerd is a contender with a containerd of its own.
func behindContainerd(ctx context.Context, b *bench, name string, s rig.Snapshotter, count func(context.Context) (int, error)) (*contender.Contender, error) {
	c, err := b.rig.StartContainerd(ctx, name, s)
	if err != nil {
		return nil, err
	}
	if err := c.Unpack(ctx, b.image); err != nil {
		return nil, err
	}
	through := c.Through(count)
	return &contender.Contender{
		PID: c.PID(), Containerd: c.PID(),
		Snapshots: through, Extract: c.Extract(through), Import: c.Unpack, RemoveImages: c.RemoveImages,
		RunContainer: c.RunContainer(imageName, "/app", "hello"), FirstOutput: c.FirstOutput(imageName, "/app", "hello"),
	}, nil
}

func zfstplBy(client string, most int, flags ...string) func(context.Context, *bench, string) (*contender.Contender, error) {
	return func(ctx context.Context, b *bench, name string) (*contender.Contender, error) {
		d, err := b.rig.Base(ctx, name)
		if err != nil {
			return nil, err
		}
		if b.archive != "" {
			flags = append(flags, "--cache-keep", "0s") // what is imported again is unpacked again
		}
		if err := d.Start(ctx, client, flags...); err != nil {
			return nil, err
		}
		c, err := behindContainerd(ctx, b, name, rig.Snapshotter{Plugin: "zfstpl", Daemon: d}, d.Count)
		if err != nil {
			return nil, err
		}
		c.Reclaimed, c.Most, c.PID = b.rig.Reclaimed, most, d.PID()
		return c, nil
	}
}

// makeBuiltin is zfstpl compiled into containerd: there is no daemon, only its base.
func makeBuiltin(ctx context.Context, b *bench, name string) (*contender.Contender, error) {
	d, err := b.rig.Base(ctx, name)
	if err != nil {
		return nil, err
	}
	c, err := behindContainerd(ctx, b, name, rig.Snapshotter{Plugin: "zfstpl", Dataset: d.Dataset()}, d.Count)
	if err != nil {
		return nil, err
	}
	c.Reclaimed = b.rig.Reclaimed
	return c, nil
}

func makeZFSPlugin(ctx context.Context, b *bench, name string) (*contender.Contender, error) {
	if err := b.rig.MakeDataset(ctx, name, true); err != nil {
		return nil, err
	}
	count := func(ctx context.Context) (int, error) {
		return contender.CountDatasets(ctx, b.rig.ZFS, b.rig.Name, b.rig.Dataset(name))
	}
	c, err := behindContainerd(ctx, b, name, rig.Snapshotter{Plugin: "zfs", Root: b.rig.Path(name)}, count)
	if err != nil {
		return nil, err
	}
	c.Reclaimed, c.Most = b.rig.Reclaimed, most
	return c, nil
}

func makeOverlayZFS(ctx context.Context, b *bench, name string) (*contender.Contender, error) {
	if err := b.rig.MakeDataset(ctx, name, true); err != nil {
		return nil, err
	}
	c, err := overlayOn(name)(ctx, b, name)
	if err != nil {
		return nil, err
	}
	c.Reclaimed = b.rig.Reclaimed
	return c, nil
}

// overlayOn is overlayfs on the file system that is mounted at a directory of
// the rig.
func overlayOn(dir string) func(context.Context, *bench, string) (*contender.Contender, error) {
	return func(ctx context.Context, b *bench, name string) (*contender.Contender, error) {
		root := b.rig.Path(dir, "overlayfs")
		c, err := behindContainerd(ctx, b, name, rig.Snapshotter{Plugin: "overlayfs", Root: root},
			contender.CountEntries(root+"/snapshots"))
		if err != nil {
			return nil, err
		}
		c.Most = most
		return c, nil
	}
}

func makeBtrfs(ctx context.Context, b *bench, name string) (*contender.Contender, error) {
	root := b.rig.Path("btrfs")
	c, err := behindContainerd(ctx, b, name, rig.Snapshotter{Plugin: "btrfs", Root: root},
		contender.CountEntries(root+"/active", root+"/view", root+"/snapshots"))
	if err != nil {
		return nil, err
	}
	c.Most = most
	return c, nil
}

// makeSocket is zfstpl without containerd: what it costs by itself. Its programs are in a
// directory, or in PATH if it is "".
func makeSocket(bin string) func(context.Context, *bench, string) (*contender.Contender, error) {
	return func(ctx context.Context, b *bench, name string) (*contender.Contender, error) {
		d, err := b.rig.BaseOf(ctx, name, bin)
		if err != nil {
			return nil, err
		}
		if err := d.Start(ctx, "native"); err != nil {
			return nil, err
		}
		b.daemons[name] = d
		sn, err := d.Snapshotter()
		if err != nil {
			return nil, err
		}
		return &contender.Contender{
			PID:       d.PID(),
			Snapshots: &contender.Through{Snapshotter: sn, Collect: contender.Cleaner(sn), Count: d.Count},
			Reclaimed: b.rig.Reclaimed,
		}, nil
	}
}

// makeProxy is a minimal proxy snapshotter behind containerd. It keeps nothing, so that
// what it holds cannot be counted and what removes it means nothing.
func makeProxy(flags ...string) func(context.Context, *bench, string) (*contender.Contender, error) {
	return func(ctx context.Context, b *bench, name string) (*contender.Contender, error) {
		if err := b.rig.MakeDataset(ctx, name, true); err != nil {
			return nil, err
		}
		p, err := b.rig.StartProxy(ctx, name, b.rig.Path(name), flags...)
		if err != nil {
			return nil, err
		}
		c, err := b.rig.StartContainerd(ctx, name, rig.Snapshotter{Plugin: name, Address: p.Address})
		if err != nil {
			return nil, err
		}
		return &contender.Contender{
			PID: p.PID(), Containerd: c.PID(),
			Snapshots: c.Through(func(context.Context) (int, error) { return 0, nil }),
			Lacks:     []string{report.Commit, report.Remove, report.OffDisk, report.RemoveAll},
			Most:      most,
		}, nil
	}
}

func makeFloor(ctx context.Context, b *bench, name string) (*contender.Contender, error) {
	if err := b.rig.MakeDataset(ctx, name, false); err != nil {
		return nil, err
	}
	return &contender.Contender{
		Snapshots: &contender.Floor{ZFS: b.rig.ZFS, Pool: b.rig.Name, Base: b.rig.Dataset(name)},
		Lacks:     []string{report.Mounts, report.Stat},
		Reclaimed: b.rig.Reclaimed,
	}, nil
}
