//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fill writes until the pool is full.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(dir + "/fill")
	must(t, err)
	defer f.Close()
	random, err := os.Open("/dev/urandom")
	must(t, err)
	defer random.Close()
	for size := int64(1 << 20); size >= 1<<12; size /= 4 {
		for {
			if _, err := io.CopyN(f, random, size); err != nil {
				break
			}
			if err := f.Sync(); err != nil {
				break
			}
		}
	}
}

func TestPoolOutOfSpaceIsENOSPC(t *testing.T) {
	h, pool := openOn(t, 80<<20)
	ctx := t.Context()
	snap := template(t, h, pool+"/t")
	must(t, h.Create(ctx, pool+"/a", map[string]string{"mountpoint": "legacy", "compression": "off"}))
	must(t, h.Clone(ctx, snap, pool+"/c", nil))
	// The rest is reserved, so that the pool is full quickly and exactly.
	d, err := h.Stat(ctx, pool)
	must(t, err)
	must(t, h.Create(ctx, pool+"/r", nil))
	dir := mount(t, pool+"/a")
	must(t, h.SetProperties(ctx, pool+"/r", map[string]string{"reservation": strconv.FormatUint(d.Available-12<<20, 10)}))
	fill(t, dir)
	must(t, h.Sync(ctx, pool))

	want(t, h.Create(ctx, pool+"/x", nil), syscall.ENOSPC)
	want(t, h.Clone(ctx, snap, pool+"/x", nil), syscall.ENOSPC)
	want(t, h.Snapshots(ctx, []string{pool + "/a@x"}, nil), syscall.ENOSPC)
	got, err := h.Run(ctx, pool, Program{Source: `return zfs.sync.snapshot((...)["argv"][1])`, Args: []string{pool + "/a@x"}})
	if err != nil || got != int64(syscall.ENOSPC) {
		t.Errorf("snapshot in a program: got %v, %v", got, err)
	}
	// Changes that free space or need none succeed.
	must(t, h.SetProperties(ctx, pool+"/c", map[string]string{"org.zfstpl:r": "x"}))
	must(t, h.Rename(ctx, pool+"/c", pool+"/d"))
	must(t, h.Destroy(ctx, pool+"/d"))
	must(t, h.DestroySnapshots(ctx, []string{snap}))
	must(t, os.Remove(dir+"/fill"))
	for range 3 {
		must(t, h.Sync(ctx, pool))
	}
	must(t, h.Snapshots(ctx, []string{pool + "/a@x"}, nil))

	// A full quota does not prevent a snapshot, a clone or a file system.
	must(t, h.Create(ctx, pool+"/q", map[string]string{"quota": "2097152", "compression": "off", "mountpoint": "legacy"}))
	dir = mount(t, pool+"/q")
	fill(t, dir)
	must(t, h.Sync(ctx, pool))
	must(t, h.Create(ctx, pool+"/q/x", nil))
	must(t, h.Snapshots(ctx, []string{pool + "/q@x"}, nil))
	must(t, h.Clone(ctx, pool+"/q@x", pool+"/q/y", nil))
	want(t, h.SetProperties(ctx, pool+"/q", map[string]string{"quota": "1048576"}), syscall.ENOSPC)
}

// WaitFree waits until the space of a destroyed file system is free, or until its
// context ends.
func TestPoolWaitFreeEndsWithItsContext(t *testing.T) {
	const parameter = "/sys/module/zfs/parameters/zfs_async_block_max_blocks"
	h, pool := openOn(t, 512<<20)
	ctx := t.Context()
	began := time.Now()
	waited, err := h.WaitFree(ctx, pool)
	if err != nil || waited || time.Since(began) > soon {
		t.Errorf("nothing to wait for: got %v, %v after %v", waited, err, time.Since(began))
	}
	must(t, h.Create(ctx, pool+"/a", map[string]string{"mountpoint": "legacy", "compression": "off", "recordsize": "4096"}))
	dir := mount(t, pool+"/a")
	must(t, os.WriteFile(dir+"/f", make([]byte, 64<<20), 0o600))
	must(t, syscall.Unmount(dir, 0))
	before, err := os.ReadFile(parameter)
	must(t, err)
	restore := func() { must(t, os.WriteFile(parameter, before, 0o600)) }
	must(t, os.WriteFile(parameter, []byte("1"), 0o600)) // one block each transaction group
	defer restore()
	must(t, h.Destroy(ctx, pool+"/a"))
	must(t, h.Sync(ctx, pool))
	p, err := h.details(ctx, pool)
	must(t, err)
	if p.Freeing == 0 {
		t.Fatalf("nothing is being freed: %+v", p)
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	began = time.Now()
	_, err = h.WaitFree(short, pool)
	if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took < 400*time.Millisecond || took > soon {
		t.Errorf("got %v after %v", err, took)
	}
	restore()
	waited, err = h.WaitFree(ctx, pool)
	if err != nil || !waited {
		t.Errorf("got %v, %v", waited, err)
	}
	for range 3 {
		must(t, h.Sync(ctx, pool))
	}
	p, err = h.details(ctx, pool)
	must(t, err)
	if p.Freeing != 0 || p.Allocated > 32<<20 {
		t.Errorf("not freed: %+v", p)
	}
	_, err = h.WaitFree(ctx, "zfstpltestnone")
	want(t, err, syscall.ENOENT)
}

// failWrites makes every write to a pool's disk fail, and every probe of the disk, as
// zinject does, until the returned function is called.
func failWrites(t *testing.T, h *Handle, pool string) (heal func()) {
	t.Helper()
	const (
		injectFault, clearFault     request = 0x5a1d, 0x5a1e
		atGUID, atRecord                    = 12592, 13296
		recordGUID, recordError             = 32, 44
		recordType, recordCommand           = 320, 344
		writes, probes, deviceFault         = 2, 16, 2
	)
	guid, err := strconv.ParseUint(run(t, "zpool", "get", "-Hpo", "value", "guid", pool, os.Getenv(poolDirVariable)+"/"+pool), 10, 64)
	must(t, err)
	c := newCommand(pool)
	var faults []uint64
	for _, kind := range []byte{probes, writes} {
		must(t, c.fill())
		c.put(atRecord+recordGUID, guid)
		c.raw[atRecord+recordError] = byte(syscall.EIO)
		c.raw[atRecord+recordType] = kind
		c.raw[atRecord+recordCommand] = deviceFault
		if errno := h.ioctl(injectFault, c); errno != 0 {
			t.Fatal(errno)
		}
		faults = append(faults, c.get(atGUID))
	}
	return sync.OnceFunc(func() {
		for _, id := range faults {
			must(t, c.fill())
			c.put(atGUID, id)
			if errno := h.ioctl(clearFault, c); errno != 0 {
				t.Error(errno)
			}
		}
		run(t, "zpool", "clear", pool)
	})
}

// A pool whose disk fails is suspended. Its state can still be read, and changes
// return EAGAIN.
func TestPoolSuspendedIsEAGAIN(t *testing.T) {
	h, pool := openOn(t, 128<<20)
	ctx := t.Context()
	must(t, h.Create(ctx, pool+"/a", nil))
	run(t, "zpool", "sync", pool)
	heal := failWrites(t, h, pool)
	defer heal()
	done := make(chan error, 1)
	go func() { done <- h.SetProperties(context.WithoutCancel(ctx), pool+"/a", map[string]string{"a:b": "c"}) }()
	deadline := time.Now().Add(2 * soon)
	for {
		p, err := h.details(ctx, pool)
		must(t, err)
		if p.Suspended {
			if p.Health != "SUSPENDED" || p.Size == 0 {
				t.Errorf("got %+v", p)
			}
			break
		}
		if time.Now().After(deadline) {
			select {
			case err := <-done:
				t.Errorf("the change ended: %v", err)
			default:
			}
			t.Fatalf("not suspended: %+v\n%s", p, run(t, "zpool", "status", "-sv", pool))
		}
		time.Sleep(100 * time.Millisecond)
	}
	want(t, h.Create(ctx, pool+"/b", nil), syscall.EAGAIN)
	_, err := h.Run(ctx, pool, Program{Source: `return 1`})
	want(t, err, syscall.EAGAIN)
	_, err = h.Stat(ctx, pool+"/a")
	want(t, err, syscall.EAGAIN)
	heal()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(2 * soon):
		t.Error("the change did not end")
	}
}
