//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/bench/internal/contender"
	"github.com/zfstpl/zfstpl/integration/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/bench/internal/result"
	"github.com/zfstpl/zfstpl/integration/bench/internal/rig"
)

// layersPlan says which layers are made, and how often.
type layersPlan struct {
	name string
	// roots are numbers of files in an image, ascending; rounds is how often
	// each contender has its turn, save that who is slow has one at the last.
	roots  []int
	rounds int
	// many is how many files are new or renamed in the first image, large how
	// large a new one is.
	many  int
	large int64
	// patience is what one contender may take for one thing: after that it has
	// no further turn. It has one at least.
	patience time.Duration
}

var fullLayers = layersPlan{
	name: "full", roots: []int{5_000, 50_000, 250_000}, rounds: 3, many: 20_000, large: 1 << 30, patience: time.Minute,
}

// emulatedLarge stands in for the large file where processors are software.
const emulatedLarge = 64 << 20

var quickLayers = layersPlan{
	name: "quick", roots: []int{1000}, rounds: 1, many: 500, large: 4 << 20, patience: 20 * time.Second,
}

// maker of layers: a snapshotter and the differ that containerd uses with it.
type layerer struct {
	name   string
	c      *rig.Containerd
	daemon *rig.Daemon // ours only
	spent  map[string]time.Duration
	serial int
}

type layersBench struct {
	layersPlan
	rig   *rig.Rig
	image string // archive to import, or ""
	began time.Time
	all   []*layerer
	round int
}

// measureLayers measures what it costs to make layers of what was changed.
func measureLayers(ctx context.Context, p layersPlan, image string, o rig.Options) (err error) {
	b := &layersBench{layersPlan: p, image: image, began: time.Now()}
	b.rig, err = rig.New(ctx, o)
	defer func() {
		b.say("taking everything down")
		err = errors.Join(err, b.rig.Close())
	}()
	if err != nil {
		return err
	}
	ctx = namespaces.WithNamespace(ctx, contender.Namespace)
	facts, err := b.rig.Facts(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(facts, result.Fact{Key: "machine", Value: result.Emulated}) {
		b.large = min(b.large, emulatedLarge)
	}
	if err := result.WriteFacts(os.Stdout, append(facts, result.Fact{Key: report.PlanFact, Value: p.name})); err != nil {
		return err
	}
	if err := b.setUp(ctx); err != nil {
		return err
	}
	if b.image != "" {
		if err := b.measureImport(ctx); err != nil {
			return err
		}
	}
	for _, files := range b.roots {
		if err := b.measureRoot(ctx, files); err != nil {
			return err
		}
	}
	return b.writeMemory()
}

func (b *layersBench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%6s] %s\n", time.Since(b.began).Round(time.Second), fmt.Sprintf(format, args...))
}

func (b *layersBench) setUp(ctx context.Context) error {
	daemon, err := b.rig.Base(ctx, report.Native)
	if err != nil {
		return err
	}
	// What is imported again is to be unpacked again.
	if err := daemon.Start(ctx, "native", "--warm-keep", "0s"); err != nil {
		return err
	}
	for _, name := range []string{report.ZFSPlugin, report.OverlayZFS} {
		if err := b.rig.MakeDataset(ctx, name, true); err != nil {
			return err
		}
	}
	for name, s := range map[string]rig.Snapshotter{
		report.Native:      {Plugin: "zfstpl", Daemon: daemon},
		report.ZFSPlugin:   {Plugin: "zfs", Root: b.rig.Path(report.ZFSPlugin)},
		report.OverlayZFS:  {Plugin: "overlayfs", Root: b.rig.Path(report.OverlayZFS, "overlayfs")},
		report.OverlayExt4: {Plugin: "overlayfs", Root: b.rig.Path("ext4", "overlayfs")},
	} {
		c, err := b.rig.StartContainerd(ctx, name, s)
		if err != nil {
			return err
		}
		b.all = append(b.all, &layerer{name: name, c: c, daemon: s.Daemon, spent: make(map[string]time.Duration)})
	}
	slices.SortFunc(b.all, func(a, b *layerer) int { return strings.Compare(a.name, b.name) })
	return nil
}

// A deed is something that is done to a container's files.
type deed struct {
	operation string
	do        func(root string) error
}

// measureRoot measures everything that is done to an image of so many files. All
// but the first are for what costs little alone, and the last is not for overlayfs
// on ext4: there is one on ZFS.
func (b *layersBench) measureRoot(ctx context.Context, files int) error {
	first, last := files == b.roots[0], files == b.roots[len(b.roots)-1]
	if last && !first {
		b.all = slices.DeleteFunc(b.all, func(l *layerer) bool { return l.name == report.OverlayExt4 })
	}
	b.say("making an image of %d files for each", files)
	parent, movable := fmt.Sprintf("root-%d", files), 0
	if first {
		movable = b.many
	}
	for _, l := range b.all {
		if err := l.makeRoot(ctx, parent, files, movable); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	deeds := []deed{{report.LayerFew, changeFew}}
	if first {
		deeds = append(deeds,
			deed{report.LayerMany, func(root string) error { return writeTree(filepath.Join(root, "new"), b.many) }},
			deed{report.LayerRenamed, func(root string) error {
				// By a program: overlayfs does not rename directories of an image.
				_, err := rig.Run(ctx, "mv", filepath.Join(root, "movable"), filepath.Join(root, "moved"))
				return err
			}},
			deed{report.LayerLarge, func(root string) error { return writeLarge(filepath.Join(root, "large"), b.large) }})
	}
	for _, d := range deeds {
		for round := range b.rounds {
			if err := b.turns(ctx, d, parent, files, round); err != nil {
				return err
			}
			b.say("%s, image of %d files: round %d of %d", d.operation, files, round+1, b.rounds)
		}
	}
	return nil
}

func (b *layersBench) turns(ctx context.Context, d deed, parent string, files, round int) error {
	b.round++
	for i := range b.all {
		l := b.all[(i+b.round)%len(b.all)]
		id := fmt.Sprintf("%s/%d", d.operation, files)
		if round > 0 && l.spent[id] > b.patience {
			continue
		}
		took, err := l.layer(ctx, parent, d.do)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", l.name, d.operation, err)
		}
		l.spent[id] += took
		fmt.Println(result.Sample{
			Case:  result.Case{Operation: d.operation, Clones: files, Callers: 1, On: l.name},
			Value: float64(took.Nanoseconds()), Unit: result.Nanoseconds,
		})
	}
	return nil
}

// kept keeps what is not removed from containerd's collections.
var kept = snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "bench"})

func (l *layerer) makeRoot(ctx context.Context, name string, files, movable int) error {
	mounts, err := l.c.Snapshots().Prepare(ctx, name+"-extract", "", kept)
	if err != nil {
		return err
	}
	err = mount.WithTempMount(ctx, mounts, func(root string) error {
		return errors.Join(writeTree(filepath.Join(root, "usr"), files), writeTree(filepath.Join(root, "movable"), movable))
	})
	if err != nil {
		return err
	}
	return l.c.Snapshots().Commit(ctx, name, name+"-extract", kept)
}

// layer answers how long it takes to make a layer of what was done to a
// container's files.
func (l *layerer) layer(ctx context.Context, parent string, do func(root string) error) (time.Duration, error) {
	l.serial++
	key := fmt.Sprintf("container-%d", l.serial)
	mounts, err := l.c.Snapshots().Prepare(ctx, key, parent, kept)
	if err != nil {
		return 0, err
	}
	if err := mount.WithTempMount(ctx, mounts, do); err != nil {
		return 0, err
	}
	unix.Sync()
	began := time.Now()
	err = l.c.Layer(ctx, key)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	if err := l.c.Snapshots().Remove(ctx, key); err != nil {
		return 0, err
	}
	return took, contender.Collector(l.c.Client)(ctx)
}

// measureImport measures how long it takes until an archive is an image that
// containers can be run of.
func (b *layersBench) measureImport(ctx context.Context) error {
	for round := range b.rounds {
		b.round++
		for i := range b.all {
			l := b.all[(i+b.round)%len(b.all)]
			began := time.Now()
			if err := l.c.Unpack(ctx, b.image); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			took := time.Since(began)
			if err := l.c.RemoveImages(ctx); err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			fmt.Println(result.Sample{
				Case:  result.Case{Operation: report.Import, Callers: 1, On: l.name},
				Value: float64(took.Nanoseconds()), Unit: result.Nanoseconds,
			})
		}
		b.say("import of the image: round %d of %d", round+1, b.rounds)
	}
	return nil
}

// writeMemory writes down what the daemon had in memory at most.
func (b *layersBench) writeMemory() error {
	for _, l := range b.all {
		if l.daemon == nil {
			continue
		}
		m, err := l.daemon.Memory()
		if err != nil {
			return err
		}
		fmt.Println(result.Sample{
			Case:  result.Case{Operation: report.MemoryLayers + report.PeakSuffix, Clones: b.roots[len(b.roots)-1], Callers: 1, On: l.name},
			Value: m.Peak, Unit: result.Bytes,
		})
	}
	return nil
}
