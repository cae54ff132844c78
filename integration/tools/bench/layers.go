//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/contender"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/report"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/result"
	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/rig"
)

// layersPlan says which layers are made, and how often.
type layersPlan struct {
	name string
	// few are numbers of files in images in which few are changed, ascending.
	few []int
	// root is how many files the image has that many, or a large one, are added to,
	// many how many these are, and how many are renamed in an image of nothing else,
	// and large how large the large one is. Without a root none of it is measured.
	root, many int
	large      int64
	// largestOf are the contenders that the largest image is measured with; all but
	// overlayfs on ext4 where there are none.
	largestOf []string
	// rounds is how often each contender has its turn.
	rounds int
	// patience is what one contender may take for its turns at one thing, with
	// what it takes to get ready: after that it has no more. It has one at least.
	patience time.Duration
}

var (
	fullFew    = layersPlan{name: "full", few: []int{5_000, 50_000, 250_000}, rounds: 3, patience: 90 * time.Second}
	fullLayers = layersPlan{name: "full", root: 5_000, many: 20_000, large: 1 << 30, rounds: 3, patience: 90 * time.Second}

	quickFew    = layersPlan{name: "quick", few: []int{1000, 2000}, rounds: 1, patience: 20 * time.Second}
	quickLayers = layersPlan{name: "quick", root: 1000, many: 500, large: 4 << 20, rounds: 1, patience: 20 * time.Second}
)

// emulatedLarge stands in for the large file where processors are software.
const emulatedLarge = 64 << 20

// maker of layers: a snapshotter and the differ that containerd uses with it.
type layerer struct {
	name   string
	c      *rig.Containerd
	daemon *rig.Daemon   // ours only
	spent  time.Duration // on the deed that is measured
	serial int
}

type layersBench struct {
	layersPlan
	rig   *rig.Rig
	began time.Time
	all   []*layerer
	round int
}

// measureLayers measures what it costs to make layers of what was changed.
func measureLayers(ctx context.Context, p layersPlan, o rig.Options) (err error) {
	b := &layersBench{layersPlan: p, began: time.Now()}
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
	if err := b.measureDeeds(ctx); err != nil {
		return err
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
	if err := daemon.Start(ctx, "native"); err != nil {
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
		b.all = append(b.all, &layerer{name: name, c: c, daemon: s.Daemon})
	}
	slices.SortFunc(b.all, func(a, b *layerer) int { return strings.Compare(a.name, b.name) })
	return nil
}

// A deed is something that is done to a container's files, which are those of an
// image.
type deed struct {
	operation string
	image     string
	files     int // in the image
	do        func(root string) error
}

// measureDeeds measures few changes in images of every size, then many in one, and
// what is renamed in an image of its own.
func (b *layersBench) measureDeeds(ctx context.Context) error {
	for i, files := range b.few {
		measure := b.measureFew
		if i > 0 && i == len(b.few)-1 {
			measure = b.measureLargest
		}
		if err := measure(ctx, files); err != nil {
			return err
		}
	}
	if b.root == 0 {
		return nil
	}
	if err := b.makeImage(ctx, b.all, rootName(b.root), "usr", b.root); err != nil {
		return err
	}
	if err := b.makeImage(ctx, b.all, "movable", "movable", b.many); err != nil {
		return err
	}
	for _, d := range []deed{
		{report.LayerMany, rootName(b.root), b.root, func(root string) error { return writeTree(filepath.Join(root, "new"), b.many) }},
		{report.LayerLarge, rootName(b.root), b.root, func(root string) error { return writeLarge(filepath.Join(root, "large"), b.large) }},
		{report.LayerRenamed, "movable", b.many, func(root string) error {
			// By a program: overlayfs does not rename directories of an image.
			_, err := rig.Run(ctx, "mv", filepath.Join(root, "movable"), filepath.Join(root, "moved"))
			return err
		}},
	} {
		if err := b.measureDeed(ctx, d, b.all); err != nil {
			return err
		}
	}
	return nil
}

func (b *layersBench) measureFew(ctx context.Context, files int) error {
	if err := b.makeImage(ctx, b.all, rootName(files), "usr", files); err != nil {
		return err
	}
	return b.measureDeed(ctx, few(files), b.all)
}

// measureLargest measures few changes in the largest image, which takes long to
// make and long to look through: one contender after the other, zfstpl first,
// and not overlayfs on ext4, for there is one on ZFS.
func (b *layersBench) measureLargest(ctx context.Context, files int) error {
	who := slices.DeleteFunc(slices.Clone(b.all), func(l *layerer) bool {
		if len(b.largestOf) > 0 {
			return !slices.Contains(b.largestOf, l.name)
		}
		return l.name == report.OverlayExt4
	})
	slices.SortStableFunc(who, func(a, b *layerer) int {
		return cmp.Compare(slices.Index(largestOrder, a.name), slices.Index(largestOrder, b.name))
	})
	if err := b.makeImage(ctx, who, rootName(files), "usr", files); err != nil {
		return err
	}
	for i := range who {
		if err := b.measureDeed(ctx, few(files), who[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

var largestOrder = []string{report.Native, report.OverlayZFS, report.ZFSPlugin}

// few is a change of few files in an image of many.
func few(files int) deed { return deed{report.LayerFew, rootName(files), files, changeFew} }

func rootName(files int) string { return fmt.Sprintf("root-%d", files) }

// makeImage makes an image of a tree for some contenders, all at once: nothing is
// measured meanwhile.
func (b *layersBench) makeImage(ctx context.Context, who []*layerer, name, dir string, files int) error {
	b.say("making an image of %d files for each", files)
	var each sync.WaitGroup
	errs := make([]error, len(who))
	for i, l := range who {
		each.Go(func() {
			if err := l.makeImage(ctx, name, dir, files); err != nil {
				errs[i] = fmt.Errorf("%s: %w", l.name, err)
			}
		})
	}
	each.Wait()
	return errors.Join(errs...)
}

func (b *layersBench) measureDeed(ctx context.Context, d deed, who []*layerer) error {
	for _, l := range who {
		l.spent = 0
	}
	for round := range b.rounds {
		if err := b.turns(ctx, d, who); err != nil {
			return err
		}
		b.say("%s, image of %d files: round %d of %d", d.operation, d.files, round+1, b.rounds)
	}
	return nil
}

func (b *layersBench) turns(ctx context.Context, d deed, who []*layerer) error {
	b.round++
	for i := range who {
		l := who[(i+b.round)%len(who)]
		if l.spent > b.patience {
			continue
		}
		began := time.Now()
		took, err := l.layer(ctx, d)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", l.name, d.operation, err)
		}
		l.spent += time.Since(began)
		fmt.Println(result.Sample{
			Case:  result.Case{Operation: d.operation, Clones: d.files, Callers: 1, On: l.name},
			Value: float64(took.Nanoseconds()), Unit: result.Nanoseconds,
		})
	}
	return nil
}

// kept keeps what is not removed from containerd's collections.
var kept = snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "bench"})

func (l *layerer) makeImage(ctx context.Context, name, dir string, files int) error {
	mounts, err := l.c.Snapshots().Prepare(ctx, name+"-extract", "", kept)
	if err != nil {
		return err
	}
	err = mount.WithTempMount(ctx, mounts, func(root string) error { return writeTree(filepath.Join(root, dir), files) })
	if err != nil {
		return err
	}
	return l.c.Snapshots().Commit(ctx, name, name+"-extract", kept)
}

// layer returns how long it takes to make a layer of what was done.
func (l *layerer) layer(ctx context.Context, d deed) (time.Duration, error) {
	l.serial++
	key := fmt.Sprintf("container-%d", l.serial)
	mounts, err := l.c.Snapshots().Prepare(ctx, key, d.image, kept)
	if err != nil {
		return 0, err
	}
	if err := mount.WithTempMount(ctx, mounts, d.do); err != nil {
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
			Case:  result.Case{Operation: report.MemoryLayers + report.PeakSuffix, Clones: max(b.root, slices.Max(append([]int{0}, b.few...))), Callers: 1, On: l.name},
			Value: m.Peak, Unit: result.Bytes,
		})
	}
	return nil
}
