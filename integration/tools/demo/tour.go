//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/zfstpl/zfstpl/integration/registry"
)

// options are what the command line says.
type options struct {
	image, manifest    string
	bin, containerdBin string
	device, dir        string
	keep, rehearse     bool
}

// A tour is one run of the demo and everything that belongs to it.
type tour struct {
	options
	*narrator
	sigs *signals

	// name is unique on this machine: the pool, containerd's namespace and the
	// temporary directory are called so.
	name string
	// tmp holds all files, sockets and mount points.
	tmp    string
	pooled bool
	// config is the version of the configuration file that containerd reads.
	config     int
	daemon     *service
	containerd *service
	// empty is what the pool holds before the first image.
	empty []string

	// foreign are the directories that the tour, not the machine, has made
	// outside of tmp.
	foreign []string

	// registry serves the image under a reference of its own.
	registry      *registry.Registry
	reference     string
	closeRegistry func() error

	first, second computed
	space         space
	finished      []finished
}

// A step is one stop of the tour.
type step struct {
	title string
	about string
	// zfs steps are left out of a rehearsal.
	zfs bool
	run func(context.Context) error
}

type finished struct {
	title string
	took  time.Duration
}

// socketLimit is what sun_path leaves for the directory of our sockets.
const socketLimit = 70

func newTour(o options, sigs *signals) (*tour, error) {
	for _, path := range []*string{&o.image, &o.manifest, &o.bin, &o.containerdBin, &o.dir} {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(absolute); err != nil {
			return nil, err
		}
		*path = absolute
	}
	name := fmt.Sprintf("zfstpl-demo-%d-%s", os.Getpid(), strings.ToLower(rand.Text()[:6]))
	parent := o.dir
	if parent == "" {
		parent = os.TempDir()
	}
	tmp := filepath.Join(parent, name)
	t := &tour{options: o, narrator: newNarrator(os.Stdout, tmp), sigs: sigs, name: name, tmp: tmp}
	if len(t.tmp) > socketLimit {
		return nil, fmt.Errorf("%s is too long a path for sockets: name a shorter one with --dir", t.tmp)
	}
	return t, t.preparePath()
}

func (t *tour) steps() []step {
	return []step{
		{"What this machine has", "the versions everything below depends on", false, t.showVersions},
		{"A pool", "all that zfstpl needs is one dataset in a pool", true, t.makePool},
		{"A home for templates", "init makes the base dataset: templates and running containers live below it", true, t.initialize},
		{"The daemon", "it serves containerd's snapshotter interface on a socket and keeps no state of its own", true, t.startDaemon},
		{"containerd", "an ordinary containerd: zfstpl is a few lines in its configuration", false, t.startContainerd},
		{"Pull an image", "each layer becomes a template: a clone of the one below, frozen by a snapshot", false, t.pullFirst},
		{"What a pull leaves on the pool", "one dataset per layer, and of each only what it changed", true, t.showTree},
		{"Is it the image?", "every path, owner, mode, hard link and byte against what was built", false, t.compare},
		{"Run a container", "its root is a clone of the top template: made in one transaction, whatever the size", false, t.runFirst},
		{"Change files in a second container", "edit, delete, create, hard link; the container ends, its clone stays", false, t.runSecond},
		{"Commit it to a new image", "what changed becomes a layer, the layer a template", false, t.commitSecond},
		{"Run the new image", "the changes are there, and the program counts them", false, t.runThird},
		{"Templates and clones", "who uses what, and what it costs", true, t.showSharing},
		{"Look around", "everything is running", false, t.pause},
		{"Remove it all", "containers, images, then one garbage collection", false, t.removeAll},
		{"What is left of it", "no image names the templates any more; they stay cached for the next pull", true, t.showCached},
		{"Pull it again", "its layers are in the pool: they are fetched, and none is unpacked", true, t.pullAgain},
		{"Stop", "SIGTERM, and both exit with 0", false, t.stopServices},
		{"Clean up", "the daemon has left a list of what may go; a command goes on from there", true, t.cleanUp},
		{"Leave no trace", "no process, no mount, no dataset, no file", false, t.leave},
	}
}

// take runs the steps. Whatever goes wrong, nothing of it is left.
func (t *tour) take(ctx context.Context) (err error) {
	started := time.Now()
	if err := adoptOrphans(); err != nil {
		return err
	}
	if err := os.Mkdir(t.tmp, 0o700); err != nil {
		return err
	}
	t.noteRuntimeDirs()
	defer func() {
		if err != nil {
			err = errors.Join(err, t.rescue())
		}
	}()
	steps := t.chosen()
	for i, s := range steps {
		if err := t.stop(ctx, i+1, len(steps), s); err != nil {
			if ctx.Err() == nil {
				t.showLogs()
			}
			return fmt.Errorf("%s: %w", strings.ToLower(s.title), err)
		}
	}
	t.summarize(time.Since(started))
	return nil
}

// chosen are the steps that these options ask for.
func (t *tour) chosen() []step {
	var chosen []step
	for _, s := range t.steps() {
		switch {
		case s.zfs && t.rehearse:
		case s.title == "Look around" && !t.keep:
		case s.title == "Is it the image?" && t.manifest == "":
		default:
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// stop makes one stop of the tour.
func (t *tour) stop(ctx context.Context, number, of int, s step) error {
	t.heading(number, of, s)
	started := time.Now()
	err := s.run(ctx)
	if ctx.Err() != nil {
		// What was interrupted fails in its own words; this is the reason.
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	took := time.Since(started)
	t.finished = append(t.finished, finished{s.title, took})
	t.say("done in %s", seconds(took))
	return nil
}

func (t *tour) path(elements ...string) string {
	return filepath.Join(append([]string{t.tmp}, elements...)...)
}
