//go:build linux

package recipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A kitchen is where one image is made: a temporary directory, a log, and what
// is known of the machine.
type kitchen struct {
	dir      string
	log      *os.File
	progress io.Writer
	started  time.Time
	host     host
}

const workPrefix = "work-"

// newKitchen needs the cache's lock: it removes what a killed process left.
func newKitchen(ctx context.Context, o Options) (*kitchen, error) {
	left, err := filepath.Glob(filepath.Join(o.Cache, workPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp(o.Cache, workPrefix)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(o.Cache, "log"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	k := &kitchen{dir: dir, log: log, progress: o.Progress, started: time.Now()}
	if err := k.equip(ctx); err != nil {
		return nil, errors.Join(k.explain(err), k.close())
	}
	k.host = inspectHost(ctx)
	return k, nil
}

// close removes everything but the log.
func (k *kitchen) close() error {
	return errors.Join(os.RemoveAll(k.dir), k.log.Close())
}

// say writes what happens now for the user and into the log.
func (k *kitchen) say(name, format string, args ...any) {
	line := fmt.Sprintf("%6.1fs  %-12s %s\n", time.Since(k.started).Seconds(), name, fmt.Sprintf(format, args...))
	fmt.Fprint(k.progress, line)
	fmt.Fprint(k.log, line)
}

// image makes the image in the kitchen's directory and returns the directory
// that is to become the cache entry.
func (k *kitchen) image(ctx context.Context) (string, error) {
	made := filepath.Join(k.dir, "made")
	if err := os.Mkdir(made, 0o755); err != nil {
		return "", err
	}
	var blobs []blob
	lower := ""
	for i, s := range steps {
		k.say(s.name, "%s", s.about)
		tree, b, err := k.layer(ctx, i, lower)
		if err != nil {
			return "", fmt.Errorf("layer %d (%s): %w", i+1, s.name, err)
		}
		// Two trees at a time are enough.
		if err := os.RemoveAll(lower); err != nil {
			return "", err
		}
		blobs, lower = append(blobs, b), tree
	}
	k.say("image", "%s in an OCI layout", Reference)
	image, err := assemble(blobs)
	if err != nil {
		return "", err
	}
	if err := writeLayers(filepath.Join(made, layersName), blobs); err != nil {
		return "", err
	}
	if err := k.pack(image, filepath.Join(made, tarName)); err != nil {
		return "", err
	}
	k.say("check", "the layers, applied one by one, give the tree they came from")
	if err := k.check(ctx, image, lower, filepath.Join(made, rootfsName)); err != nil {
		return "", err
	}
	info, err := os.Stat(filepath.Join(made, tarName))
	if err != nil {
		return "", err
	}
	k.say("done", "%d layers, %.1f MB", len(blobs), float64(info.Size())/1e6)
	return made, nil
}

// explain adds the end of the log to an error that a command's output explains
// better than its exit status.
func (k *kitchen) explain(err error) error {
	content, readErr := os.ReadFile(k.log.Name())
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return fmt.Errorf("%w\nthe end of %s:\n%s", err, k.log.Name(), tail(string(content), 20))
}

// tail returns the last n lines, each indented.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	lines = lines[max(0, len(lines)-n):]
	return "  | " + strings.Join(lines, "\n  | ")
}
