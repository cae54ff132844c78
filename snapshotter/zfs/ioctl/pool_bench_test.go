//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// benchVariable enables TestPoolTimes, which takes minutes.
const benchVariable = "ZFSTPL_BENCH"

func median(t *testing.T, n int, f func(i int)) time.Duration {
	t.Helper()
	var d []time.Duration
	for i := range n {
		began := time.Now()
		f(i)
		d = append(d, time.Since(began))
	}
	slices.Sort(d)
	return d[n/2]
}

// appends calls fn with a function that appends to a file on ZFS and synchronises it.
func appends(t *testing.T, fn func(write func())) {
	t.Helper()
	dir := t.TempDir()
	run(t, "zfs", "create", "-o", "mountpoint="+dir, sharedPool+"/appends")
	defer run(t, "zfs", "destroy", sharedPool+"/appends")
	file, err := os.Create(filepath.Join(dir, "log"))
	must(t, err)
	defer file.Close()
	entry := make([]byte, 400)
	fn(func() {
		_, err := file.Write(entry)
		must(t, err)
		must(t, unix.Fdatasync(int(file.Fd())))
	})
}

// TestPoolTimes prints the cost of a clone with a record in several ways, and of
// listings, at 10 and 1000 clones of one snapshot.
func TestPoolTimes(t *testing.T) {
	if os.Getenv(benchVariable) == "" {
		t.Skip("set " + benchVariable + " to measure")
	}
	h, base := open(t)
	ctx := t.Context()
	snap := template(t, h, base+"/t")
	created := 0
	name := func() string {
		created++
		return fmt.Sprintf("%s/c%d", base, created)
	}
	const prepare = `local a = (...)["argv"]
		local e = zfs.check.clone(a[1], a[2]); if e == 0 then e = zfs.sync.clone(a[1], a[2]) end
		if e == 0 then e = zfs.sync.set_prop(a[2], "org.zfstpl:record", a[3]) end
		return { errno = e }`
	record := strings.Repeat("r", 200)
	// trim destroys the newest clones until n are left.
	trim := func(n int) {
		var names []string
		for ; created > n; created-- {
			names = append(names, fmt.Sprintf("%s/c%d", base, created))
		}
		_, err := h.Run(ctx, sharedPool, Program{Source: `for i, name in ipairs((...)["argv"]) do zfs.sync.destroy(name) end`, Args: names})
		must(t, err)
	}
	programs := atLeast(release(t), 2, 4)
	for _, clones := range []int{10, 1000} {
		for created < clones {
			must(t, h.Clone(ctx, snap, name(), nil))
		}
		times := func(n int, what string, f func(int)) {
			t.Helper()
			defer trim(clones)
			t.Logf("%4d clones: %-38s %9.2f ms", clones, what, float64(median(t, n, f).Microseconds())/1000)
		}
		print := func(what string, f func(int)) { t.Helper(); times(15, what, f) }
		if programs {
			print("native program: clone and record", func(int) {
				_, err := h.Run(ctx, sharedPool, Program{Source: prepare, Args: []string{snap, name(), record}})
				must(t, err)
			})
			print("zfs program: clone and record", func(int) {
				cmd := exec.Command("zfs", "program", "-j", sharedPool, "-", snap, name(), record)
				cmd.Stdin = strings.NewReader(prepare)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			})
		}
		if programs {
			const cloneAll = `local a = (...)["argv"]; for i = 2, #a do local e = zfs.sync.clone(a[1], a[i]); if e ~= 0 then return e end end; return 0`
			names := func(n int) (args []string) {
				for args = []string{snap}; n > 0; n-- {
					args = append(args, name())
				}
				return args
			}
			times(5, "one program: 16 clones", func(int) {
				_, err := h.Run(ctx, sharedPool, Program{Source: cloneAll, Args: names(16)})
				must(t, err)
			})
			times(5, "16 programs at once: a clone each", func(int) {
				errs := make(chan error)
				for range 16 {
					args := names(1)
					go func() {
						_, err := h.Run(ctx, sharedPool, Program{Source: cloneAll, Args: args})
						errs <- err
					}()
				}
				for range 16 {
					must(t, <-errs)
				}
			})
		}
		print("native clone with record", func(int) {
			must(t, h.Clone(ctx, snap, name(), map[string]string{"org.zfstpl:record": record}))
		})
		print("native clone", func(int) { must(t, h.Clone(ctx, snap, name(), nil)) })
		times(3, "zfs clone -o record", func(int) { run(t, "zfs", "clone", "-o", "org.zfstpl:record="+record, snap, name()) })
		print("native set of a property", func(i int) {
			must(t, h.SetProperties(ctx, base, map[string]string{"a:b": fmt.Sprint(i)}))
		})
		appends(t, func(write func()) {
			print("append of 400 bytes and fdatasync", func(int) { write() })
		})
		print("zfs set of a property", func(i int) { run(t, "zfs", "set", fmt.Sprintf("a:b=%d", i), base) })
		print("native read-only program", func(int) {
			_, err := h.Run(ctx, sharedPool, Program{Source: `return 1`, ReadOnly: true})
			must(t, err)
		})
		print("zfs program -n", func(int) {
			cmd := exec.Command("zfs", "program", "-jn", sharedPool, "-")
			cmd.Stdin = strings.NewReader("return 1")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		})
		print("native FastStat of the snapshot", func(int) {
			_, err := h.FastStat(ctx, snap)
			must(t, err)
		})
		times(3, "native Stat of the snapshot", func(int) {
			_, err := h.Stat(ctx, snap)
			must(t, err)
		})
		times(3, "native ListFilesystems", func(int) {
			_, err := h.ListFilesystems(ctx, base)
			must(t, err)
		})
		times(1, "zfs get -r all", func(int) {
			run(t, "zfs", "get", "-Hp", "-r", "-t", "filesystem", "-o", "name,property,source,value", "all", base)
		})
		print("native ListSnapshots of the template", func(int) {
			_, err := h.ListSnapshots(ctx, base+"/t")
			must(t, err)
		})
		times(5, "native destroy", func(int) {
			must(t, h.Destroy(ctx, fmt.Sprintf("%s/c%d", base, created)))
			created--
		})
	}
}
