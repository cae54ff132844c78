//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// end removes everything as containerd's garbage collection does, and wants
// the pool to be as 'zfstpl init' made it.
func (m *machine) end(ctx context.Context, c *client) error {
	for {
		removed, err := c.removeLeaves(ctx)
		if err != nil {
			return err
		}
		if removed == 0 {
			break
		}
	}
	if err := c.cleanup(ctx); err != nil {
		return err
	}
	list, _, err := datasets(ctx)
	if err != nil {
		return err
	}
	var left []string
	for _, d := range list {
		left = append(left, strings.TrimPrefix(d.Name, baseName))
	}
	slices.Sort(left)
	if want := []string{"", "/runtime", "/storage", "/storage/empty"}; !slices.Equal(left, want) {
		return fmt.Errorf("everything was removed, and these datasets are left: %q", left)
	}
	return m.daemon.stop(ctx)
}

// removeLeaves removes what no snapshot stands on and returns how many.
func (c *client) removeLeaves(ctx context.Context) (int, error) {
	var all []string
	parents := make(map[string]bool)
	err := c.sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		all = append(all, info.Name)
		parents[info.Parent] = true
		return nil
	})
	if err != nil {
		return 0, err
	}
	removed := 0
	for _, name := range all {
		if parents[name] {
			continue
		}
		if err := c.remove(ctx, name); err != nil {
			return removed, err
		}
		if _, err := c.sn.Stat(ctx, name); !errdefs.IsNotFound(err) {
			return removed, fmt.Errorf("%q was removed and Stat says: %w", name, err)
		}
		removed++
	}
	return removed, nil
}
