//go:build linux

package contender

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/ioctl"
)

// Floor is the least that ZFS has to be asked for: one call an operation, and
// nothing around it. It checks nothing, remembers nothing and undoes nothing.
type Floor struct {
	ZFS  *ioctl.Handle
	Pool string
	// Base is a dataset of its own whose children inherit mountpoint=legacy.
	Base string

	// clones is true if programs can clone (2.4 and later).
	clones bool
	mu     sync.Mutex
	// committed are the former clones of what was committed, by its name.
	committed map[string]string
	views     map[string]bool
}

const (
	floorProperty = "zfstpl-bench:record"
	floorRecord   = `{"name":"default/17/some-key","kind":"active","parent":"default/3/some-parent","labels":{"containerd.io/gc.root":"bench"}}`
	floorSnapshot = "@s"

	clonesProgram = `return zfs.sync.clone ~= nil`
	// The programs that make something. zfs.sync.clone is new in 2.4.
	snapshotProgram = `return zfs.sync.snapshot((...)["argv"][1])`
	promoteProgram  = `return (zfs.sync.promote((...)["argv"][1]))`
	cloneProgram    = `local a = (...)["argv"]
local e = zfs.sync.clone(a[1], a[2])
if e == 0 then e = zfs.sync.set_prop(a[2], a[3], a[4]) end
return e`
	commitProgram = `local a = (...)["argv"]
local e = zfs.sync.snapshot(a[1])
if e == 0 then e = zfs.sync.clone(a[1], a[2]) end
if e == 0 then e = zfs.sync.promote(a[2]) end
if e == 0 then e = zfs.sync.set_prop(a[2], a[3], a[4]) end
return e`
	inheritProgram = `local a = (...)["argv"]
return zfs.sync.inherit(a[1], a[2])`
	destroyProgram = `for _, name in ipairs((...)["argv"]) do
    local e = zfs.sync.destroy(name)
    if e ~= 0 then return e end
end
return 0`
	// destroyBatch keeps one program's hold on the pool short.
	destroyBatch = 50
)

func (f *Floor) name(key string) string { return f.Base + "/" + key }
func (f *Floor) template() string       { return f.name(templateName) + floorSnapshot }

// MakeTemplate makes a file system and its snapshot.
func (f *Floor) MakeTemplate(ctx context.Context, fill func(root string) error) error {
	f.committed, f.views = make(map[string]string), make(map[string]bool)
	clones, err := f.ZFS.Run(ctx, f.Pool, ioctl.Program{Source: clonesProgram, ReadOnly: true})
	if err != nil {
		return err
	}
	f.clones = clones == true
	if out, err := exec.CommandContext(ctx, "zfs", "create", f.name(templateName)).CombinedOutput(); err != nil {
		return fmt.Errorf("create %s: %w: %s", f.name(templateName), err, out)
	}
	if err := mount.WithTempMount(ctx, f.mounts(templateName), fill); err != nil {
		return err
	}
	return f.run(ctx, snapshotProgram, f.template())
}

// Prepare clones the template and sets a property of the clone.
func (f *Floor) Prepare(ctx context.Context, key string) error {
	if !f.clones {
		return f.ZFS.Clone(ctx, f.template(), f.name(key), map[string]string{floorProperty: floorRecord})
	}
	return f.run(ctx, cloneProgram, f.template(), f.name(key), floorProperty, floorRecord)
}

// View sets a property of the template.
func (f *Floor) View(ctx context.Context, key string) error {
	f.mu.Lock()
	f.views[key] = true
	f.mu.Unlock()
	return f.ZFS.SetProperties(ctx, f.name(templateName), map[string]string{floorProperty + "-" + key: floorRecord})
}

// Commit takes a clone's snapshot away from it, to a new clone of that.
func (f *Floor) Commit(ctx context.Context, name, key string) error {
	from, to := f.name(key)+floorSnapshot, f.name(name)
	f.mu.Lock()
	f.committed[name] = key
	f.mu.Unlock()
	if f.clones {
		return f.run(ctx, commitProgram, from, to, floorProperty, floorRecord)
	}
	if err := f.run(ctx, snapshotProgram, from); err != nil {
		return err
	}
	if err := f.ZFS.Clone(ctx, from, to, map[string]string{floorProperty: floorRecord}); err != nil {
		return err
	}
	return f.run(ctx, promoteProgram, to)
}

// Mounts is what mount(2) takes.
func (f *Floor) Mounts(_ context.Context, key string) ([]mount.Mount, error) {
	return f.mounts(key), nil
}

func (f *Floor) mounts(key string) []mount.Mount {
	return []mount.Mount{{Type: "zfs", Source: f.name(key)}}
}

// Stat has nothing to ask ZFS for.
func (f *Floor) Stat(context.Context, string) error { return nil }

// Usage asks for a clone's properties.
func (f *Floor) Usage(ctx context.Context, key string) error {
	_, err := f.ZFS.Stat(ctx, f.name(key))
	return err
}

// Remove destroys.
func (f *Floor) Remove(ctx context.Context, keys ...string) error {
	var doomed, views []string
	f.mu.Lock()
	for _, key := range keys {
		former, isCommitted := f.committed[key]
		switch {
		case f.views[key]:
			views = append(views, key)
		case isCommitted:
			doomed = append(doomed, f.name(former), f.name(key)+floorSnapshot, f.name(key))
		default:
			doomed = append(doomed, f.name(key))
		}
		delete(f.committed, key)
		delete(f.views, key)
	}
	f.mu.Unlock()
	for _, key := range views {
		if err := f.run(ctx, inheritProgram, f.name(templateName), floorProperty+"-"+key); err != nil {
			return err
		}
	}
	for batch := range slices.Chunk(doomed, destroyBatch) {
		if err := f.run(ctx, destroyProgram, batch...); err != nil {
			return err
		}
	}
	return nil
}

// Held counts the file systems.
func (f *Floor) Held(ctx context.Context) (int, error) {
	return CountDatasets(ctx, f.ZFS, f.Pool, f.Base)
}

// run runs a program that returns an errno.
func (f *Floor) run(ctx context.Context, source string, args ...string) error {
	result, err := f.ZFS.Run(ctx, f.Pool, ioctl.Program{Source: source, Args: args})
	if err != nil {
		return err
	}
	if errno, ok := result.(int64); !ok || errno != 0 {
		return fmt.Errorf("a program on %s returned %v: %w", args[0], result, syscall.Errno(errno))
	}
	return nil
}

// CountDatasets counts the file systems below the datasets.
func CountDatasets(ctx context.Context, zfs *ioctl.Handle, pool string, datasets ...string) (int, error) {
	const count = `local n = 0
for _, name in ipairs((...)["argv"]) do
    for child in zfs.list.children(name) do n = n + 1 end
end
return n`
	result, err := zfs.Run(ctx, pool, ioctl.Program{Source: count, Args: datasets, ReadOnly: true})
	if err != nil {
		return 0, err
	}
	n, ok := result.(int64)
	if !ok {
		return 0, fmt.Errorf("counting datasets: the program returned %v", result)
	}
	return int(n), nil
}
