//go:build linux && (amd64 || arm64 || riscv64)

package ioctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

func TestPoolProgramReturnsValues(t *testing.T) {
	h, _ := open(t)
	for script, want := range map[string]any{
		`return`:                       nil,
		`local x = 1`:                  nil,
		`return nil`:                   nvlist.Flag{},
		`return 42`:                    int64(42),
		`return -9223372036854775807`:  int64(-9223372036854775807),
		`return true`:                  true,
		`return "ä\n"`:                 "ä\n",
		`return ""`:                    "",
		`return {}`:                    nvlist.List(nil),
		`return {"x", {y = false}}`:    nvlist.List{{Name: "1", Value: "x"}, {Name: "2", Value: nvlist.List{{Name: "y", Value: false}}}},
		`return #(...)["argv"]`:        int64(3),
		`return (...)["argv"][1]`:      "one",
		`return (...)["argv"][2]`:      "",
		`return (...)["argv"][3]`:      "ü b",
		`return (...)["argv"][4]`:      nvlist.Flag{},
		`return string.rep("x", 1000)`: strings.Repeat("x", 1000),
	} {
		for _, readOnly := range []bool{true, false} {
			got, err := h.Run(t.Context(), sharedPool, Program{Source: script, Args: []string{"one", "", "ü b"}, ReadOnly: readOnly})
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %#v, %v", script, got, err)
			}
		}
	}
	if got, err := h.Run(t.Context(), sharedPool, Program{Source: `return #(...)["argv"]`, ReadOnly: true}); err != nil || got != int64(0) {
		t.Errorf("without arguments: got %v, %v", got, err)
	}
	// A result much longer than a pooled buffer, and many arguments.
	args := make([]string, 5000)
	for i := range args {
		args[i] = fmt.Sprintf("%s/%d", sharedPool, i)
	}
	got, err := h.Run(t.Context(), sharedPool, Program{Source: `return (...)["argv"]`, Args: args, ReadOnly: true})
	must(t, err)
	list := got.(nvlist.List)
	for i, arg := range args {
		if len(list) != len(args) {
			t.Fatalf("%d values", len(list))
		}
		if i%500 == 0 {
			if v, _ := list.Lookup(fmt.Sprint(i + 1)); v != arg {
				t.Errorf("%d is %v", i, v)
			}
		}
	}
}

// The kernel decodes what this module encodes: it returns a value of each type or, for
// a type that a program cannot take, an error with the type and the pair.
func TestPoolProgramDecodesEveryType(t *testing.T) {
	h, _ := open(t)
	deep := nvlist.List{{Name: "end", Value: int64(1)}}
	for range nvlist.MaxDepth - 3 {
		deep = nvlist.List{{Name: "l", Value: deep}}
	}
	for _, p := range []struct {
		in, out any
		refused nvlist.Type
	}{
		{in: true}, {in: "ä"}, {in: ""}, {in: int64(-5)}, {in: strings.Repeat("x", 10000)},
		{in: nvlist.List{{Name: "a", Value: "b"}, {Name: "abcdefg", Value: false}}}, {in: nvlist.List(nil)}, {in: deep},
		{in: []string{"a", "", "cde"}, out: nvlist.List{{Name: "1", Value: "a"}, {Name: "2", Value: ""}, {Name: "3", Value: "cde"}}},
		{in: []uint64{7, 1 << 62}, out: nvlist.List{{Name: "1", Value: int64(7)}, {Name: "2", Value: int64(1 << 62)}}},
		{in: []int64{-7}, out: nvlist.List{{Name: "1", Value: int64(-7)}}},
		{in: []int64{}, out: nvlist.List(nil)},
		{in: nvlist.Flag{}, refused: nvlist.TypeFlag},
		{in: byte(1), refused: nvlist.TypeByte},
		{in: nvlist.Uint8(1), refused: nvlist.TypeUint8},
		{in: int8(1), refused: nvlist.TypeInt8},
		{in: int16(1), refused: nvlist.TypeInt16},
		{in: uint16(1), refused: nvlist.TypeUint16},
		{in: int32(1), refused: nvlist.TypeInt32},
		{in: uint32(1), refused: nvlist.TypeUint32},
		{in: uint64(1), refused: nvlist.TypeUint64},
		{in: []byte{1, 2, 3}, refused: nvlist.TypeByteArray},
		{in: nvlist.Uint8s{1}, refused: nvlist.TypeUint8Array},
		{in: []int8{1}, refused: nvlist.TypeInt8Array},
		{in: []int16{1, 2, 3}, refused: nvlist.TypeInt16Array},
		{in: []uint16{1}, refused: nvlist.TypeUint16Array},
		{in: []int32{1, 2, 3}, refused: nvlist.TypeInt32Array},
		{in: []uint32{1}, refused: nvlist.TypeUint32Array},
		{in: []bool{true, false, true}, refused: nvlist.TypeBoolArray},
		{in: []nvlist.List{{{Name: "a", Value: "b"}}, nil, {{Name: "c", Value: []nvlist.List{nil}}}}, refused: nvlist.TypeListArray},
	} {
		c := newCommand(sharedPool)
		in := Program{Source: `return (...)["x"]`, ReadOnly: true}.list()
		in[1].Value = nvlist.List{{Name: "before", Value: "1"}, {Name: "x", Value: p.in}, {Name: "y", Value: int64(1)}}
		must(t, c.setIn(in))
		c.wantOut = true
		got, err := c.result(h.wait(t.Context(), reqChannelProgram, c, nil))
		c.free()
		if p.refused != 0 {
			want(t, err, syscall.EINVAL)
			if message := fmt.Sprintf("Unhandled nvpair type %d for key 'x'", p.refused); err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("%T: got %v", p.in, err)
			}
			continue
		}
		if p.out == nil {
			p.out = p.in
		}
		if list, ok := got.(nvlist.List); ok { // tables have no order
			slices.SortFunc(list, func(a, b nvlist.Pair) int { return strings.Compare(a.Name, b.Name) })
		}
		if list, ok := p.out.(nvlist.List); ok {
			slices.SortFunc(list, func(a, b nvlist.Pair) int { return strings.Compare(a.Name, b.Name) })
		}
		if err != nil || !reflect.DeepEqual(got, p.out) {
			t.Errorf("%#v: got %#v, %v", p.in, got, err)
		}
	}
}

func TestPoolProgramReturnsErrnos(t *testing.T) {
	h, base := open(t)
	for _, p := range []struct {
		errno   syscall.Errno
		message string
		program Program
	}{
		{syscall.EINVAL, "syntax error", Program{Source: `this is not Lua`}},
		{ErrnoProgram, "oh no", Program{Source: `error("oh no")`}},
		{ErrnoProgram, "", Program{Source: `error({code = 5})`}},
		{ErrnoProgram, "Multiple return", Program{Source: `return 1, 2`}},
		{ErrnoProgram, "nil value", Program{Source: `return zfs.nothing.there()`}},
		{syscall.ETIME, "timed out", Program{Source: `while true do end`, Instructions: 10000}},
		{syscall.EINVAL, "", Program{Source: `return 1`, Instructions: MaxInstructions + 1}},
		{syscall.EINVAL, "", Program{Source: `return 1`, Memory: MaxMemory + 1}},
		{syscall.ENOSPC, "", Program{Source: `local s = "x"; while true do s = s .. s end`, Memory: 1 << 20}},
		{ErrnoProgram, "", Program{Source: `zfs.sync.snapshot("` + base + `@x")`, ReadOnly: true}},
		{ErrnoProgram, "Maximum table depth", Program{Source: `local t = {}; t.t = t; return t`}},
	} {
		for _, readOnly := range []bool{true, p.program.ReadOnly} {
			p.program.ReadOnly = readOnly
			_, err := h.Run(t.Context(), sharedPool, p.program)
			want(t, err, p.errno)
			if err != nil && !strings.Contains(err.Error(), p.message) {
				t.Errorf("%s: got %v", p.program.Source, err)
			}
		}
	}
	_, err := h.Run(t.Context(), "zfstpltestnone", Program{Source: `return 1`})
	want(t, err, syscall.ENOENT)
	_, err = h.Run(t.Context(), sharedPool+"/a", Program{Source: `return 1`})
	want(t, err, syscall.EINVAL)
	if exists(t, h, base+"@x") {
		t.Error("a read-only program took a snapshot")
	}
}

// A table that repeats one long string is longer than the memory that the script
// needed for it.
func TestPoolProgramWithALongResultIsENOMEM(t *testing.T) {
	h, base := open(t)
	_, err := h.Run(t.Context(), sharedPool, Program{
		Source: `zfs.sync.snapshot("` + base + `@x")
			local s, t = string.rep("x", 100000), {}
			for i = 1, 50 do t[i] = s end
			return t`,
		Memory: 1 << 20,
	})
	want(t, err, syscall.ENOMEM)
	if err == nil || !strings.Contains(err.Error(), "did not fit") || !exists(t, h, base+"@x") {
		t.Errorf("got %v", err)
	}
}

func TestPoolProgramChangesThePool(t *testing.T) {
	h, base := open(t)
	must(t, h.Create(t.Context(), base+"/a", nil))
	got, err := h.Run(t.Context(), sharedPool, Program{
		Source: `
			local a = (...)["argv"][1]
			local errs = { zfs.sync.snapshot(a .. "@1"), zfs.sync.set_prop(a, "org.zfstpl:r", "x") }
			return { errs = errs, second = zfs.sync.snapshot(a .. "@1") }`,
		Args: []string{base + "/a"},
	})
	must(t, err)
	want := nvlist.List{{Name: "1", Value: int64(0)}, {Name: "2", Value: int64(0)}}
	if errs, _ := nvlist.Get[nvlist.List](got.(nvlist.List), "errs"); !reflect.DeepEqual(errs, want) {
		t.Errorf("got %v", got)
	}
	if second, _ := nvlist.Get[int64](got.(nvlist.List), "second"); second != int64(syscall.EAGAIN) { // in the same transaction group
		t.Errorf("got %v", got)
	}
	d, err := h.Stat(t.Context(), base+"/a")
	must(t, err)
	if d.User["org.zfstpl:r"] != "x" || !exists(t, h, base+"/a@1") {
		t.Errorf("got %+v", d)
	}
	// The same with clone, if the release supports it.
	snap := template(t, h, base+"/t")
	supported, err := h.Run(t.Context(), sharedPool, Program{Source: `return zfs.sync.clone ~= nil`, ReadOnly: true})
	must(t, err)
	if supported != atLeast(release(t), 2, 4) {
		t.Errorf("release %s: clone in programs: %v", release(t), supported)
	}
	if supported == true {
		got, err := h.Run(t.Context(), sharedPool, Program{
			Source: `local a = (...)["argv"]; return zfs.sync.clone(a[1], a[2])`, Args: []string{snap, base + "/c"}})
		if err != nil || got != int64(0) {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

// slowProgram takes snapshots with much work between them.
const slowProgram = `
	local base = (...)["argv"][1]
	for i = 1, 40 do
		zfs.sync.snapshot(base .. "/" .. i .. "@x")
		for j = 1, 1000 do end
	end
	return 40`

func snapshotBase(t *testing.T, h *Handle, base string) {
	t.Helper()
	for i := 1; i <= 40; i++ {
		must(t, h.Create(t.Context(), fmt.Sprintf("%s/%d", base, i), nil))
	}
}

func snapshotsTaken(t *testing.T, h *Handle, base string) (n int) {
	t.Helper()
	for i := 1; i <= 40; i++ {
		if exists(t, h, fmt.Sprintf("%s/%d@x", base, i)) {
			n++
		}
	}
	return n
}

// lockThread calls f on a thread of its own.
func lockThread(f func(thread int)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f(unix.Gettid())
}

// Signals do not interrupt a program, and would if they were not blocked.
func TestPoolProgramIsNotInterruptedBySignals(t *testing.T) {
	h, base := open(t)
	snapshotBase(t, h, base)
	received := make(chan os.Signal, 1)
	signal.Notify(received, unix.SIGUSR1)
	defer signal.Stop(received)
	storm, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	sendSignals := func(thread func() int) {
		wg.Go(func() {
			for storm.Err() == nil {
				_ = unix.Tgkill(os.Getpid(), thread(), unix.SIGURG)
				_ = unix.Kill(os.Getpid(), unix.SIGUSR1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	program := Program{Source: slowProgram, Args: []string{base}}

	threads := make(chan int, 1)
	result := make(chan error, 1)
	go lockThread(func(thread int) {
		threads <- thread
		_, err := h.Run(t.Context(), sharedPool, program)
		result <- err
	})
	thread := <-threads
	sendSignals(func() int { return thread })
	if err := <-result; err != nil || snapshotsTaken(t, h, base) != 40 {
		t.Errorf("got %v, %d of 40 steps", err, snapshotsTaken(t, h, base))
	}
	stop()
	wg.Wait()

	// The control: the same call without blocked signals.
	for i := 1; i <= 40; i++ {
		must(t, h.Destroy(t.Context(), fmt.Sprintf("%s/%d@x", base, i)))
	}
	storm, stop = context.WithCancel(t.Context())
	defer stop()
	go lockThread(func(thread int) {
		threads <- thread
		c := newCommand(sharedPool)
		c.wantOut = true
		err := c.setIn(program.list())
		if err == nil {
			err = c.fill()
		}
		if err == nil {
			if errno := h.ioctl(reqChannelProgram, c); errno != 0 {
				err = errno
			}
		}
		result <- err
	})
	thread = <-threads
	sendSignals(func() int { return thread })
	err := <-result
	stop()
	wg.Wait()
	t.Logf("without blocked signals: %v, %d of 40 steps", err, snapshotsTaken(t, h, base))
	if !errors.Is(err, syscall.EINTR) {
		t.Errorf("without blocked signals: got %v: the test proves nothing", err)
	}
}

// Concurrent changes succeed under the signals of a busy Go program.
func TestPoolCallsAreConcurrent(t *testing.T) {
	h, base := open(t)
	snap := template(t, h, base+"/t")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				name := fmt.Sprintf("%s/%d-%d", base, i, j)
				if err := h.Clone(t.Context(), snap, name, map[string]string{"org.zfstpl:r": name}); err != nil {
					t.Error(err)
				}
				if _, err := h.ListFilesystems(t.Context(), base); err != nil {
					t.Error(err)
				}
				d, err := h.Stat(t.Context(), name)
				if err != nil || d.User["org.zfstpl:r"] != name {
					t.Errorf("%+v, %v", d, err)
				}
				if j%2 == 0 {
					if err := h.Destroy(t.Context(), name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	list, err := h.ListFilesystems(t.Context(), base)
	must(t, err)
	if len(list) != 2+8*2 {
		t.Errorf("%d file systems are left", len(list))
	}
}

// childVariable makes this binary run the program childProgram in a pool, to be
// killed.
const (
	childVariable = "ZFSTPL_TEST_CHILD"
	childProgram  = "ZFSTPL_TEST_CHILD_PROGRAM"
)

func runChild(base string) int {
	h, err := Open(context.Background())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("running")
	_, err = h.Run(context.Background(), poolOf(base), Program{Source: os.Getenv(childProgram), Args: []string{base}})
	fmt.Println("done", err)
	return 0
}

// killed runs a program in a process that is killed while it waits for its transaction
// group, and returns how many of 40 steps were done.
func killed(t *testing.T, h *Handle, base, program string) int {
	t.Helper()
	// Another program keeps the transaction group busy.
	busy := make(chan error, 1)
	go func() {
		_, err := h.Run(t.Context(), sharedPool, Program{Source: `for i = 1, 20000000 do end`, Instructions: MaxInstructions})
		busy <- err
	}()
	time.Sleep(100 * time.Millisecond)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childVariable+"="+base, childProgram+"="+program)
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	must(t, err)
	time.Sleep(200 * time.Millisecond)
	must(t, child.Process.Kill())
	_ = child.Wait()
	must(t, <-busy)
	must(t, h.Sync(t.Context(), sharedPool))
	n := snapshotsTaken(t, h, base)
	for i := 1; i <= 40; i++ {
		must(t, h.DestroySnapshots(t.Context(), []string{fmt.Sprintf("%s/%d@x", base, i)}))
	}
	return n
}

// SIGKILL leaves the steps of a program's first 100 instructions. If the long program
// leaves all or nothing one day, the warning at Run can be removed; if the short one
// leaves some, the warning must become stronger.
func TestPoolProgramKilledKeepsItsFirstSteps(t *testing.T) {
	h, base := open(t)
	snapshotBase(t, h, base)
	const short = 12
	var lines strings.Builder
	lines.WriteString(`local base = (...)["argv"][1]; local snapshot = zfs.sync.snapshot` + "\n")
	for i := 1; i <= short; i++ {
		fmt.Fprintf(&lines, "snapshot(base .. \"/%d@x\")\n", i)
	}
	for range 4 {
		long := killed(t, h, base, slowProgram)
		straight := killed(t, h, base, lines.String())
		t.Logf("long program: %d of 40 steps; short one: %d of %d", long, straight, short)
		if straight != 0 && straight != short {
			t.Errorf("the short program was stopped after %d of %d steps", straight, short)
		}
	}
}
