//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

func (t *tour) removeAll(ctx context.Context) error {
	// A user who looked around may have left more than the tour has.
	if err := t.removeListed(ctx, []string{"ctr", "tasks", "ls", "-q"}, "ctr", "tasks", "rm", "--force"); err != nil {
		return err
	}
	if err := t.removeListed(ctx, []string{"ctr", "containers", "ls", "-q"}, "ctr", "containers", "rm"); err != nil {
		return err
	}
	t.say("--sync: containerd returns after its garbage collection, which removes")
	t.say("the snapshots without references")
	if err := t.removeListed(ctx, []string{"ctr", "images", "ls", "-q"}, "ctr", "images", "rm", "--sync"); err != nil {
		return err
	}
	t.say("the layer that was made stays for an hour if nothing names it, by a lease")
	if err := t.removeListed(ctx, []string{"ctr", "leases", "ls", "-q"}, "ctr", "leases", "rm", "--sync"); err != nil {
		return err
	}
	if err := t.wantEmpty(ctx); err != nil {
		return err
	}
	return nil
}

// cleanUp destroys cached templates too, which a daemon would keep for a week.
func (t *tour) cleanUp(ctx context.Context) error {
	path := t.path("zfstpl.toml")
	settings := fmt.Sprintf("dataset = %q\nroot = %q\naddress = %q\ncache.keep = \"0s\"\n", t.dataset(), t.root(), t.socket())
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		return err
	}
	t.say("its configuration says that nothing is kept: cache.keep is 0s")
	if _, err := t.do(ctx, "zfstpl", "cleanup", "--config", path); err != nil {
		return err
	}
	if err := t.waitEmpty(ctx); err != nil {
		return err
	}
	_, err := t.do(ctx, "zfs", "list", "-r", "-t", "filesystem,snapshot", "-o", "name,used,referenced", t.dataset())
	return err
}

// removeListed gives a command what another lists, if it lists anything.
func (t *tour) removeListed(ctx context.Context, list []string, remove ...string) error {
	out, err := t.ask(ctx, list...)
	if err != nil {
		return err
	}
	names := strings.Fields(out)
	if len(names) == 0 {
		return nil
	}
	_, err = t.do(ctx, append(remove, names...)...)
	return err
}

// wantEmpty is an error if containerd has anything left.
func (t *tour) wantEmpty(ctx context.Context) error {
	for _, list := range [][]string{
		{"ctr", "containers", "ls", "-q"},
		{"ctr", "leases", "ls", "-q"},
		{"ctr", "content", "ls", "-q"},
		{"ctr", "snapshots", "--snapshotter", t.snapshotterName(), "ls"},
	} {
		out, err := t.ask(ctx, list...)
		if err != nil {
			return err
		}
		if left := listed(out); left != "" {
			return fmt.Errorf("%s still lists:\n%s", strings.Join(list, " "), left)
		}
	}
	t.say("containerd has no lease, no content and no snapshot left")
	return nil
}

// listed is a listing without the heading ctr prints over nothing.
func listed(out string) string {
	var left []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "KEY ") {
			left = append(left, line)
		}
	}
	return strings.Join(left, "\n")
}

func (t *tour) stopServices(ctx context.Context) error {
	if t.closeRegistry != nil {
		if err := t.closeRegistry(); err != nil {
			return err
		}
	}
	for _, s := range []*service{t.containerd, t.daemon} {
		if s == nil {
			continue
		}
		t.say("%s (process %d)", s.name, s.cmd.Process.Pid)
		if err := s.stop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// leave takes down what is left and wants it to be gone.
func (t *tour) leave(ctx context.Context) error {
	if err := waitAlone(30*time.Second, nil); err != nil {
		return err
	}
	if err := t.destroyPool(ctx); err != nil {
		return err
	}
	if !t.rehearse {
		there, err := t.poolExists(ctx)
		if err != nil {
			return err
		}
		if there {
			return fmt.Errorf("the pool %s is still there", t.name)
		}
	}
	left, err := mounts(t.tmp, t.name)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("still mounted: %+v", left)
	}
	return errors.Join(t.removeOutside(), os.RemoveAll(t.tmp))
}
