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

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// errKilled is what a command answers that was killed.
var errKilled = errors.New("signal: killed")

// errDead is what a pool answers whose machine has died.
var errDead = errors.New("the machine is dead")

// fakePool is a ZFS pool in memory that keeps ZFS's rules. Each transaction
// works on a copy of the state, which it replaces when it succeeds.
type fakePool struct {
	tb    testing.TB
	steps bool // as below 2.4, where a clone is a transaction of its own
	torn  bool // each step is a transaction, as nowhere in ZFS

	abilities fakeAbilities

	mu         sync.Mutex
	state      fakeState
	crashAfter int // transactions until the machine dies; negative: it does not
	killAfter  int // the same for one command, and no more than that
	dead       bool

	// owner is the snapshotter that works on the pool. What it shows is never
	// destroyed.
	owner atomic.Pointer[Snapshotter]

	// before and after are called around every call, by its name. An error is
	// answered in place of the call, or after it was done.
	before, after func(call string) error

	listed func(root string) // is called at each listing, where set
}

type fakeState struct {
	txg       uint64
	full      bool            // no space for what takes any
	size      uint64          // bytes that the pool has; 0 for as many as anybody wants
	point     bool            // there is a checkpoint
	suspended bool            // it is suspended, and says so
	mounted   map[string]bool // file systems and snapshots
	// attached counts the mounts that Attach made; they go with the process.
	attached map[string]int
	fs       map[string]fakeFS
}

// fakeFS is a file system. Its content is a string to which writers append.
type fakeFS struct {
	origin  string
	txg     uint64
	born    time.Time
	content string
	dirty   string // written through mmap and not flushed
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

// shows tells whether there is a record on a dataset.
func (x *index) shows(dataset string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range x.records {
		if r.dataset == dataset {
			return true
		}
	}
	return false
}

func newFakePool(tb testing.TB) *fakePool {
	p := &fakePool{tb: tb, crashAfter: -1, killAfter: -1}
	p.state = fakeState{mounted: make(map[string]bool), attached: make(map[string]int), fs: make(map[string]fakeFS)}
	p.state.create("tank", nil)
	return p
}

// afterCrash is the pool that the next boot imports: nothing is mounted, and
// what was never synced is lost.
func (p *fakePool) afterCrash() *fakePool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	next := &fakePool{tb: p.tb, steps: p.steps, torn: p.torn, abilities: p.abilities, crashAfter: -1, killAfter: -1, state: p.state.clone()}
	next.state.mounted, next.state.full = make(map[string]bool), false
	next.state.attached = make(map[string]int)
	for name, fs := range next.state.fs {
		fs.dirty = ""
		next.state.fs[name] = fs
	}
	return next
}

// edit changes the pool behind the snapshotter's back.
func (p *fakePool) edit(fn func(s *fakeState)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(&p.state)
}

// editFS changes one file system behind the snapshotter's back.
func (p *fakePool) editFS(name string, fn func(fs *fakeFS)) {
	p.tb.Helper()
	p.edit(func(s *fakeState) {
		fs, ok := s.fs[name]
		if !ok {
			p.tb.Fatalf("there is no %s", name)
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

// interrupt sets what is called before every call, while some may be under way.
func (p *fakePool) interrupt(before func(call string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = before
}

// read looks at the state.
func (p *fakePool) read(fn func(s *fakeState) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errDead
	}
	return fn(&p.state)
}

// transact carries fn out as one transaction.
func (p *fakePool) transact(fn func(s *fakeState) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.crashAfter == 0 {
		p.dead = true
	}
	if p.dead {
		return errDead
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
				p.tb.Errorf("an op that ZFS refuses: %v", err)
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

// Mark is no transaction of the operation that is cut off: it comes by itself.
func (p *fakePool) Mark(_ context.Context, name, prop, value string) error {
	return p.call("mark", func() error {
		op := zfs.Set(name, prop, value)
		if value == "" {
			op = zfs.Inherit(name, prop)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.dead {
			return errDead
		}
		return p.state.applyAll([]zfs.Op{op})
	})
}

// applySteps is what zfs.Client promises for releases below 2.4, and for a list
// with a quota: cuts only before a clone, after one, after a quota, and between
// one and the user properties behind it.
func (p *fakePool) applySteps(ops []zfs.Op) error {
	var made []string
	for len(ops) > 0 {
		n := 1
		for !p.torn && !verbIs(ops[0], "clone") && !verbIs(ops[0], "quota") && n < len(ops) && !verbIs(ops[n], "clone") {
			n++
		}
		err := p.transact(func(s *fakeState) error { return s.applyAll(ops[:n]) })
		if errors.Is(err, errDead) || errors.Is(err, errKilled) {
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

// Attach has the snapshot mounted until the answer is closed. It comes from the
// background, whenever it likes, and so runs no hooks.
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
	return closeFunc(func() error {
		p.edit(func(s *fakeState) { s.attached[name]-- })
		return nil
	}), nil
}

// Device is the same for all.
func (p *fakePool) Device(context.Context, string) (uint64, error) { return 7, nil }

// MountAt mounts for good: only a machine's end unmounts what the kernel holds.
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

// Objects counts seven for a new file system and one for each ";" in it.
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

// opWord reads a field of an op, which package zfs keeps to itself.
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

// checkFakeOp holds an op to what the kernel takes.
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
