// Package zfsfake has a ZFS pool in memory that follows the rules of ZFS and can fail at each call.
// It is for tests.
package zfsfake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// ErrKilled is the error of a killed command.
var ErrKilled = errors.New("signal: killed")

// ErrCrashed is the error of a pool after a crash of its machine.
var ErrCrashed = errors.New("the machine has crashed")

// Pool is a ZFS pool in memory that follows the rules of ZFS. A transaction changes a
// copy of the state, which replaces the state if the transaction succeeds.
type Pool struct {
	tb    testing.TB
	Steps bool // as before 2.4, where a clone is a separate transaction
	Torn  bool // each step is a transaction, which no release of ZFS does

	Abilities Abilities
	// CloseAttached replaces the end of a mount that Attach made.
	CloseAttached func(name string, unmount func()) error

	mu         sync.Mutex
	Current    State
	CrashAfter int // number of transactions until the machine crashes; negative for never
	KillAfter  int // number of transactions until one command is killed; negative for never
	Crashed    bool

	// Keeps reports whether a dataset must not be destroyed. If one is, the test fails.
	Keeps atomic.Pointer[func(dataset string) bool]

	// Before and after are called before and after every call, with its name. An error of
	// before replaces the call; an error of after replaces the result.
	Before, After func(call string) error

	Listed func(root string) // called at each listing; may be nil
}

type State struct {
	TXG        uint64
	Full       bool            // no free space
	Size       uint64          // in bytes; 0 for defaultPoolSize and never full
	Checkpoint bool            // the pool has a checkpoint
	Suspended  bool            // it is suspended, and says so
	Mounted    map[string]bool // file systems and snapshots
	// Attached counts the mounts that Attach made. They end with the process.
	Attached map[string]int
	FS       map[string]FS
}

// FS is a file system. Its content is a string to which writers append.
type FS struct {
	Origin  string
	TXG     uint64
	Born    time.Time
	Content string
	Dirty   string // written through mmap, not flushed
	Snaps   map[string]Snap
	Props   map[string]string // user properties
	Native  map[string]string
}

type Snap struct {
	TXG     uint64
	Content string
}

func (s State) Clone() State {
	c := s
	c.Attached = maps.Clone(s.Attached)
	c.Mounted, c.FS = maps.Clone(s.Mounted), make(map[string]FS, len(s.FS))
	for name, fs := range s.FS {
		fs.Snaps, fs.Props, fs.Native = maps.Clone(fs.Snaps), maps.Clone(fs.Props), maps.Clone(fs.Native)
		c.FS[name] = fs
	}
	return c
}

func New(tb testing.TB) *Pool {
	p := &Pool{tb: tb, CrashAfter: -1, KillAfter: -1}
	p.Current = State{Mounted: make(map[string]bool), Attached: make(map[string]int), FS: make(map[string]FS)}
	p.Current.Create("tank", nil)
	return p
}

// AfterCrash returns the pool as the next boot imports it: nothing is mounted, and data
// that was not flushed is lost.
func (p *Pool) AfterCrash() *Pool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Crashed = true
	next := &Pool{tb: p.tb, Steps: p.Steps, Torn: p.Torn, Abilities: p.Abilities, CrashAfter: -1, KillAfter: -1, Current: p.Current.Clone()}
	next.Current.Mounted, next.Current.Full = make(map[string]bool), false
	next.Current.Attached = make(map[string]int)
	for name, fs := range next.Current.FS {
		fs.Dirty = ""
		next.Current.FS[name] = fs
	}
	return next
}

// Edit changes the pool without the snapshotter.
func (p *Pool) Edit(fn func(s *State)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(&p.Current)
}

// EditFS changes one file system without the snapshotter.
func (p *Pool) EditFS(name string, fn func(fs *FS)) {
	p.tb.Helper()
	p.Edit(func(s *State) {
		fs, ok := s.FS[name]
		if !ok {
			p.tb.Fatalf("file system %s does not exist", name)
		}
		fn(&fs)
		s.FS[name] = fs
	})
}

func (p *Pool) call(name string, fn func() error) error {
	p.mu.Lock()
	before, after := p.Before, p.After
	p.mu.Unlock()
	if before != nil {
		if err := before(name); err != nil {
			return err
		}
	}
	if err := fn(); err != nil {
		return err
	}
	if after != nil {
		return after(name)
	}
	return nil
}

// Interrupt sets p.before while calls may be running.
func (p *Pool) Interrupt(before func(call string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Before = before
}

// read runs fn with the state.
func (p *Pool) read(fn func(s *State) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Crashed {
		return ErrCrashed
	}
	return fn(&p.Current)
}

// transact runs fn as one transaction.
func (p *Pool) transact(fn func(s *State) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.CrashAfter == 0 {
		p.Crashed = true
	}
	if p.Crashed {
		return ErrCrashed
	}
	if p.KillAfter == 0 {
		p.KillAfter = -1
		return ErrKilled
	}
	next := p.Current.Clone()
	next.TXG++
	if err := fn(&next); err != nil {
		return err
	}
	p.Current = next
	p.CrashAfter--
	p.KillAfter--
	return nil
}

func (p *Pool) Apply(_ context.Context, ops ...zfs.Op) error {
	return p.call("apply", func() error {
		for _, op := range ops {
			if err := checkFakeOp(op); err != nil {
				p.tb.Errorf("ZFS would refuse this op: %v", err)
				return err
			}
		}
		hasQuota := slices.ContainsFunc(ops, func(op zfs.Op) bool { return verbIs(op, "quota") })
		if !p.Steps && !p.Torn && !hasQuota {
			return p.transact(func(s *State) error { return s.applyAll(ops) })
		}
		return p.applySteps(ops)
	})
}

// Mark does not count as a transaction for CrashAfter and KillAfter: the background
// goroutine calls it at any time.
func (p *Pool) Mark(_ context.Context, name, prop, value string) error {
	return p.call("mark", func() error {
		op := zfs.Set(name, prop, value)
		if value == "" {
			op = zfs.Inherit(name, prop)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.Crashed {
			return ErrCrashed
		}
		return p.Current.applyAll([]zfs.Op{op})
	})
}

// applySteps applies ops as zfs.Client does before 2.4, and for a list with a quota. A
// crash can leave the ops before a clone, up to a clone, or up to a quota. If p.torn is
// set, it can leave any number of ops.
func (p *Pool) applySteps(ops []zfs.Op) error {
	var made []string
	for len(ops) > 0 {
		n := 1
		for !p.Torn && !verbIs(ops[0], "clone") && !verbIs(ops[0], "quota") && n < len(ops) && !verbIs(ops[n], "clone") {
			n++
		}
		err := p.transact(func(s *State) error { return s.applyAll(ops[:n]) })
		if errors.Is(err, ErrCrashed) || errors.Is(err, ErrKilled) {
			return err
		}
		if err != nil {
			for _, name := range slices.Backward(made) {
				if err := p.transact(func(s *State) error { return s.destroyOne(name) }); err != nil {
					return err
				}
			}
			return err
		}
		for _, op := range ops[:n] {
			if verbIs(op, "clone") || verbIs(op, "snapshot") {
				made = append(made, opWord(op, "name"))
			}
		}
		ops = ops[n:]
	}
	return nil
}

func (p *Pool) Create(_ context.Context, name string, props map[string]string) error {
	return p.call("create", func() error {
		return p.transact(func(s *State) error {
			if _, ok := s.FS[name]; ok {
				return Error("create", name, zfs.ErrExists)
			}
			if _, ok := s.FS[parentOf(name)]; !ok {
				return Error("create", name, zfs.ErrNotFound)
			}
			s.Create(name, props)
			return nil
		})
	})
}

func (s *State) Create(name string, props map[string]string) {
	fs := FS{TXG: s.TXG, Born: time.Now(), Snaps: make(map[string]Snap), Props: make(map[string]string), Native: make(map[string]string)}
	for k, v := range props {
		if strings.Contains(k, ":") {
			fs.Props[k] = v
		} else {
			fs.Native[k] = v
		}
	}
	s.FS[name] = fs
}

func (p *Pool) List(_ context.Context, root string) ([]zfs.Dataset, error) {
	if p.Listed != nil {
		p.Listed(root)
	}
	var list []zfs.Dataset
	err := p.call("list", func() error {
		return p.read(func(s *State) error {
			if _, ok := s.FS[root]; !ok {
				return Error("list", root, zfs.ErrNotFound)
			}
			for name, fs := range s.FS {
				if name != root && !strings.HasPrefix(name, root+"/") {
					continue
				}
				list = append(list, zfs.Dataset{
					Name: name, Origin: fs.Origin, CreateTXG: fs.TXG, Created: fs.Born, Used: s.used(name),
					Snapshots: slices.Sorted(maps.Keys(fs.Snaps)), Mountpoint: fs.Native["mountpoint"], Props: maps.Clone(fs.Props),
				})
			}
			return nil
		})
	})
	return list, err
}

func (p *Pool) Destroy(_ context.Context, own string, names []string) (map[string]error, error) {
	left := make(map[string]error)
	err := p.call("destroy", func() error {
		if len(names) == 0 {
			return nil
		}
		return p.transact(func(s *State) error {
			for _, name := range names {
				if err := s.destroyTemplate(p, own, name); err != nil {
					left[name] = err
				}
			}
			return nil
		})
	})
	return left, err
}

func (p *Pool) DestroyForeign(_ context.Context, own, name string) error {
	return p.call("destroyforeign", func() error {
		return p.transact(func(s *State) error {
			for _, snap := range slices.Sorted(maps.Keys(s.FS[name].Snaps)) {
				if snap == own {
					continue
				}
				if err := s.destroyOne(name + "@" + snap); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func (p *Pool) DestroySnapshot(_ context.Context, name string) error {
	return p.call("destroysnapshot", func() error {
		return p.transact(func(s *State) error { return s.destroyOne(name) })
	})
}

func (p *Pool) Flush(_ context.Context, name string) error {
	return p.call("flush", func() error {
		return p.transact(func(s *State) error {
			fs, ok := s.FS[name]
			if !ok {
				return Error("flush", name, zfs.ErrNotFound)
			}
			fs.Content, fs.Dirty = fs.Content+fs.Dirty, ""
			s.FS[name] = fs
			return nil
		})
	})
}

// Attach mounts a snapshot until the returned Closer is closed. Background goroutines call
// it at any time, so it does not call before and after.
func (p *Pool) Attach(_ context.Context, name string) (io.Closer, error) {
	err := p.read(func(s *State) error {
		if _, ok := s.ContentOf(name); !ok {
			return Error("mount", name, zfs.ErrNotFound)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.Edit(func(s *State) { s.Attached[name]++ })
	unmount := func() { p.Edit(func(s *State) { s.Attached[name]-- }) }
	return closeFunc(func() error {
		if p.CloseAttached != nil {
			return p.CloseAttached(name, unmount)
		}
		unmount()
		return nil
	}), nil
}

// Device returns the same device for all file systems.
func (p *Pool) Device(context.Context, string) (uint64, error) { return 7, nil }

// MountAt checks that the file system exists.
func (p *Pool) MountAt(_ context.Context, name, _ string) error {
	return p.call("mountat", func() error {
		return p.read(func(s *State) error {
			if _, ok := s.FS[name]; !ok {
				return Error("mount", name, zfs.ErrNotFound)
			}
			return nil
		})
	})
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

func (p *Pool) Written(_ context.Context, name, since string) (n uint64, err error) {
	err = p.call("written", func() error {
		return p.read(func(s *State) error {
			fs, ok := s.FS[name]
			switch _, found := s.ContentOf(since); {
			case !ok || !found:
				return Error("written", name, zfs.ErrNotFound)
			case fs.Origin != since:
				return Error("written", name, zfs.ErrInvalid)
			}
			n = s.used(name)
			return nil
		})
	})
	return n, err
}

// Objects returns 7 for an empty file system and one more for each ";" of content.
func (p *Pool) Objects(_ context.Context, name string) (n uint64, err error) {
	err = p.call("objects", func() error {
		return p.read(func(s *State) error {
			content, ok := s.ContentOf(name)
			if !ok {
				return Error("objects", name, zfs.ErrNotFound)
			}
			n = 7 + uint64(strings.Count(content, ";"))
			return nil
		})
	})
	return n, err
}

// opWord returns a field of an op. Package zfs does not export it.
func opWord(op zfs.Op, field string) string { return reflect.ValueOf(op).FieldByName(field).String() }

func verbIs(op zfs.Op, verb string) bool { return opWord(op, "verb") == verb }

func Error(op, name string, kind error) error {
	return &zfs.Error{Op: op, Dataset: name, Kind: kind}
}

func parentOf(name string) string { return name[:max(0, strings.LastIndexByte(name, '/'))] }

var (
	legalName     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:][A-Za-z0-9_.:-]*)*(@[A-Za-z0-9_.:-]+)?$`)
	legalProperty = regexp.MustCompile(`^[a-z0-9][a-z0-9:+._-]*$`)
)

// checkFakeOp returns an error for an op that the kernel would refuse.
func checkFakeOp(op zfs.Op) error {
	for _, field := range []string{"name", "origin"} {
		if name := opWord(op, field); name != "" && (!legalName.MatchString(name) || len(name) > 255) {
			return Error("check", fmt.Sprintf("%q", name), zfs.ErrInvalid)
		}
	}
	prop, value := opWord(op, "prop"), opWord(op, "value")
	if !verbIs(op, "set") && !verbIs(op, "inherit") {
		return nil
	}
	if !legalProperty.MatchString(prop) || !strings.Contains(prop, ":") || len(prop) > 255 ||
		len(value) > 8191 || strings.ContainsAny(value, "\x00\n\t") || !utf8.ValidString(value) {
		return Error("check", fmt.Sprintf("%q=%.60q (%d bytes)", prop, value, len(value)), zfs.ErrInvalid)
	}
	return nil
}
