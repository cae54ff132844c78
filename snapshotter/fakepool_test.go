package snapshotter

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

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// errKilled is the error of a killed command.
var errKilled = errors.New("signal: killed")

// errCrashed is the error of a pool after a crash of its machine.
var errCrashed = errors.New("the machine has crashed")

// fakePool is a ZFS pool in memory that follows the rules of ZFS. A transaction changes a
// copy of the state, which replaces the state if the transaction succeeds.
type fakePool struct {
	tb    testing.TB
	steps bool // as before 2.4, where a clone is a separate transaction
	torn  bool // each step is a transaction, which no release of ZFS does

	abilities fakeAbilities
	// closeAttached replaces the end of a mount that Attach made.
	closeAttached func(name string, unmount func()) error

	mu         sync.Mutex
	state      fakeState
	crashAfter int // number of transactions until the machine crashes; negative for never
	killAfter  int // number of transactions until one command is killed; negative for never
	crashed    bool

	// owner is the snapshotter that uses the pool. A dataset with a record in its index
	// must not be destroyed.
	owner atomic.Pointer[Snapshotter]

	// before and after are called before and after every call, with its name. An error of
	// before replaces the call; an error of after replaces the result.
	before, after func(call string) error

	listed func(root string) // called at each listing; may be nil
}

type fakeState struct {
	txg        uint64
	full       bool            // no free space
	size       uint64          // in bytes; 0 for defaultPoolSize and never full
	checkpoint bool            // the pool has a checkpoint
	suspended  bool            // it is suspended, and says so
	mounted    map[string]bool // file systems and snapshots
	// attached counts the mounts that Attach made. They end with the process.
	attached map[string]int
	fs       map[string]fakeFS
}

// fakeFS is a file system. Its content is a string to which writers append.
type fakeFS struct {
	origin  string
	txg     uint64
	born    time.Time
	content string
	dirty   string // written through mmap, not flushed
	snaps   map[string]fakeSnap
	props   map[string]string // user properties
	native  map[string]string
}

type fakeSnap struct {
	txg     uint64
	content string
}

func (s fakeState) clone() fakeState {
	c := s
	c.attached = maps.Clone(s.attached)
	c.mounted, c.fs = maps.Clone(s.mounted), make(map[string]fakeFS, len(s.fs))
	for name, fs := range s.fs {
		fs.snaps, fs.props, fs.native = maps.Clone(fs.snaps), maps.Clone(fs.props), maps.Clone(fs.native)
		c.fs[name] = fs
	}
	return c
}

// shows reports whether the index has a record on a dataset.
func shows(x *index.Index, dataset string) bool {
	return slices.ContainsFunc(x.Dump(), func(line string) bool {
		return strings.HasPrefix(line, "record ") && strings.Contains(line, " in "+dataset+" of ")
	})
}

func newFakePool(tb testing.TB) *fakePool {
	p := &fakePool{tb: tb, crashAfter: -1, killAfter: -1}
	p.state = fakeState{mounted: make(map[string]bool), attached: make(map[string]int), fs: make(map[string]fakeFS)}
	p.state.create("tank", nil)
	return p
}

// afterCrash returns the pool as the next boot imports it: nothing is mounted, and data
// that was not flushed is lost.
func (p *fakePool) afterCrash() *fakePool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.crashed = true
	next := &fakePool{tb: p.tb, steps: p.steps, torn: p.torn, abilities: p.abilities, crashAfter: -1, killAfter: -1, state: p.state.clone()}
	next.state.mounted, next.state.full = make(map[string]bool), false
	next.state.attached = make(map[string]int)
	for name, fs := range next.state.fs {
		fs.dirty = ""
		next.state.fs[name] = fs
	}
	return next
}

// edit changes the pool without the snapshotter.
func (p *fakePool) edit(fn func(s *fakeState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(&p.state)
}

// editFS changes one file system without the snapshotter.
func (p *fakePool) editFS(name string, fn func(fs *fakeFS)) {
	p.tb.Helper()
	p.edit(func(s *fakeState) {
		fs, ok := s.fs[name]
		if !ok {
			p.tb.Fatalf("file system %s does not exist", name)
		}
		fn(&fs)
		s.fs[name] = fs
	})
}

func (p *fakePool) call(name string, fn func() error) error {
	p.mu.Lock()
	before, after := p.before, p.after
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

// interrupt sets p.before while calls may be running.
func (p *fakePool) interrupt(before func(call string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = before
}

// read runs fn with the state.
func (p *fakePool) read(fn func(s *fakeState) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.crashed {
		return errCrashed
	}
	return fn(&p.state)
}

// transact runs fn as one transaction.
func (p *fakePool) transact(fn func(s *fakeState) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.crashAfter == 0 {
		p.crashed = true
	}
	if p.crashed {
		return errCrashed
	}
	if p.killAfter == 0 {
		p.killAfter = -1
		return errKilled
	}
	next := p.state.clone()
	next.txg++
	if err := fn(&next); err != nil {
		return err
	}
	p.state = next
	p.crashAfter--
	p.killAfter--
	return nil
}

func (p *fakePool) Apply(_ context.Context, ops ...zfs.Op) error {
	return p.call("apply", func() error {
		for _, op := range ops {
			if err := checkFakeOp(op); err != nil {
				p.tb.Errorf("ZFS would refuse this op: %v", err)
				return err
			}
		}
		hasQuota := slices.ContainsFunc(ops, func(op zfs.Op) bool { return verbIs(op, "quota") })
		if !p.steps && !p.torn && !hasQuota {
			return p.transact(func(s *fakeState) error { return s.applyAll(ops) })
		}
		return p.applySteps(ops)
	})
}

// Mark does not count as a transaction for crashAfter and killAfter: the background
// goroutine calls it at any time.
func (p *fakePool) Mark(_ context.Context, name, prop, value string) error {
	return p.call("mark", func() error {
		op := zfs.Set(name, prop, value)
		if value == "" {
			op = zfs.Inherit(name, prop)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.crashed {
			return errCrashed
		}
		return p.state.applyAll([]zfs.Op{op})
	})
}

// applySteps applies ops as zfs.Client does before 2.4, and for a list with a quota. A
// crash can leave the ops before a clone, up to a clone, or up to a quota. If p.torn is
// set, it can leave any number of ops.
func (p *fakePool) applySteps(ops []zfs.Op) error {
	var made []string
	for len(ops) > 0 {
		n := 1
		for !p.torn && !verbIs(ops[0], "clone") && !verbIs(ops[0], "quota") && n < len(ops) && !verbIs(ops[n], "clone") {
			n++
		}
		err := p.transact(func(s *fakeState) error { return s.applyAll(ops[:n]) })
		if errors.Is(err, errCrashed) || errors.Is(err, errKilled) {
			return err
		}
		if err != nil {
			for _, name := range slices.Backward(made) {
				if err := p.transact(func(s *fakeState) error { return s.destroyOne(name) }); err != nil {
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

func (p *fakePool) Create(_ context.Context, name string, props map[string]string) error {
	return p.call("create", func() error {
		return p.transact(func(s *fakeState) error {
			if _, ok := s.fs[name]; ok {
				return fakeError("create", name, zfs.ErrExists)
			}
			if _, ok := s.fs[parentOf(name)]; !ok {
				return fakeError("create", name, zfs.ErrNotFound)
			}
			s.create(name, props)
			return nil
		})
	})
}

func (s *fakeState) create(name string, props map[string]string) {
	fs := fakeFS{txg: s.txg, born: time.Now(), snaps: make(map[string]fakeSnap), props: make(map[string]string), native: make(map[string]string)}
	for k, v := range props {
		if strings.Contains(k, ":") {
			fs.props[k] = v
		} else {
			fs.native[k] = v
		}
	}
	s.fs[name] = fs
}

func (p *fakePool) List(_ context.Context, root string) ([]zfs.Dataset, error) {
	if p.listed != nil {
		p.listed(root)
	}
	var list []zfs.Dataset
	err := p.call("list", func() error {
		return p.read(func(s *fakeState) error {
			if _, ok := s.fs[root]; !ok {
				return fakeError("list", root, zfs.ErrNotFound)
			}
			for name, fs := range s.fs {
				if name != root && !strings.HasPrefix(name, root+"/") {
					continue
				}
				list = append(list, zfs.Dataset{
					Name: name, Origin: fs.origin, CreateTXG: fs.txg, Created: fs.born, Used: s.used(name),
					Snapshots: slices.Sorted(maps.Keys(fs.snaps)), Mountpoint: fs.native["mountpoint"], Props: maps.Clone(fs.props),
				})
			}
			return nil
		})
	})
	return list, err
}

func (p *fakePool) Destroy(_ context.Context, own string, names []string) (map[string]error, error) {
	left := make(map[string]error)
	err := p.call("destroy", func() error {
		if len(names) == 0 {
			return nil
		}
		return p.transact(func(s *fakeState) error {
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

func (p *fakePool) DestroyForeign(_ context.Context, own, name string) error {
	return p.call("destroyforeign", func() error {
		return p.transact(func(s *fakeState) error {
			for _, snap := range slices.Sorted(maps.Keys(s.fs[name].snaps)) {
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

func (p *fakePool) DestroySnapshot(_ context.Context, name string) error {
	return p.call("destroysnapshot", func() error {
		return p.transact(func(s *fakeState) error { return s.destroyOne(name) })
	})
}

func (p *fakePool) Flush(_ context.Context, name string) error {
	return p.call("flush", func() error {
		return p.transact(func(s *fakeState) error {
			fs, ok := s.fs[name]
			if !ok {
				return fakeError("flush", name, zfs.ErrNotFound)
			}
			fs.content, fs.dirty = fs.content+fs.dirty, ""
			s.fs[name] = fs
			return nil
		})
	})
}

// Attach mounts a snapshot until the returned Closer is closed. Background goroutines call
// it at any time, so it does not call before and after.
func (p *fakePool) Attach(_ context.Context, name string) (io.Closer, error) {
	err := p.read(func(s *fakeState) error {
		if _, ok := s.contentOf(name); !ok {
			return fakeError("mount", name, zfs.ErrNotFound)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	p.edit(func(s *fakeState) { s.attached[name]++ })
	unmount := func() { p.edit(func(s *fakeState) { s.attached[name]-- }) }
	return closeFunc(func() error {
		if p.closeAttached != nil {
			return p.closeAttached(name, unmount)
		}
		unmount()
		return nil
	}), nil
}

// Device returns the same device for all file systems.
func (p *fakePool) Device(context.Context, string) (uint64, error) { return 7, nil }

// MountAt checks that the file system exists.
func (p *fakePool) MountAt(_ context.Context, name, _ string) error {
	return p.call("mountat", func() error {
		return p.read(func(s *fakeState) error {
			if _, ok := s.fs[name]; !ok {
				return fakeError("mount", name, zfs.ErrNotFound)
			}
			return nil
		})
	})
}

type closeFunc func() error

func (f closeFunc) Close() error { return f() }

func (p *fakePool) Written(_ context.Context, name, since string) (n uint64, err error) {
	err = p.call("written", func() error {
		return p.read(func(s *fakeState) error {
			fs, ok := s.fs[name]
			switch _, found := s.contentOf(since); {
			case !ok || !found:
				return fakeError("written", name, zfs.ErrNotFound)
			case fs.origin != since:
				return fakeError("written", name, zfs.ErrInvalid)
			}
			n = s.used(name)
			return nil
		})
	})
	return n, err
}

// Objects returns 7 for an empty file system and one more for each ";" of content.
func (p *fakePool) Objects(_ context.Context, name string) (n uint64, err error) {
	err = p.call("objects", func() error {
		return p.read(func(s *fakeState) error {
			content, ok := s.contentOf(name)
			if !ok {
				return fakeError("objects", name, zfs.ErrNotFound)
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

func fakeError(op, name string, kind error) error {
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
			return fakeError("check", fmt.Sprintf("%q", name), zfs.ErrInvalid)
		}
	}
	prop, value := opWord(op, "prop"), opWord(op, "value")
	if !verbIs(op, "set") && !verbIs(op, "inherit") {
		return nil
	}
	if !legalProperty.MatchString(prop) || !strings.Contains(prop, ":") || len(prop) > 255 ||
		len(value) > 8191 || strings.ContainsAny(value, "\x00\n\t") || !utf8.ValidString(value) {
		return fakeError("check", fmt.Sprintf("%q=%.60q (%d bytes)", prop, value, len(value)), zfs.ErrInvalid)
	}
	return nil
}
