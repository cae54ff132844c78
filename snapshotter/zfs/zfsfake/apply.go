package zfsfake

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func (p *Pool) Apply(_ context.Context, ops ...zfs.Op) error {
	var names []string
	for _, op := range ops {
		names = append(names, op.Dataset())
	}
	return p.call(Apply, names, func() error {
		for _, op := range ops {
			if err := checkFakeOp(op); err != nil {
				p.tb.Errorf("ZFS would refuse this op: %v", err)
				return err
			}
		}
		hasQuota := slices.ContainsFunc(ops, func(op zfs.Op) bool { return verbIs(op, "quota") })
		if !p.steps && !p.torn && !hasQuota {
			return p.transact(opsOf(ops), func(s *State) error { return s.applyAll(ops) })
		}
		return p.applySteps(ops)
	})
}

// ProgramsClone reports whether a list with clones is one transaction, or a prefix of it if a
// process is killed.
func (p *Pool) ProgramsClone() bool { return !p.steps }

// Mark is not a Transaction: the background goroutine calls it at any time.
func (p *Pool) Mark(_ context.Context, name, prop, value string) error {
	return p.call(Mark, []string{name}, func() error {
		op := zfs.Set(name, prop, value)
		if value == "" {
			op = zfs.Inherit(name, prop)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.crashed {
			return ErrCrashed
		}
		return p.state.applyAll([]zfs.Op{op})
	})
}

// applySteps applies ops as zfs.Client does before 2.4, and for a list with a quota. A
// crash can leave the ops before a clone, up to a clone, or up to a quota. If p.torn is
// set, it can leave any number of ops.
func (p *Pool) applySteps(ops []zfs.Op) error {
	var made []string
	for len(ops) > 0 {
		n := 1
		for !p.torn && !verbIs(ops[0], "clone") && !verbIs(ops[0], "quota") && n < len(ops) && !verbIs(ops[n], "clone") {
			n++
		}
		err := p.transact(opsOf(ops[:n]), func(s *State) error { return s.applyAll(ops[:n]) })
		if errors.Is(err, ErrCrashed) || errors.Is(err, ErrKilled) {
			return err
		}
		if err != nil {
			for _, name := range slices.Backward(made) {
				if err := p.transact(nil, func(s *State) error { return s.destroyOne(name) }); err != nil {
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
	if !verbIs(op, "set") && !verbIs(op, "inherit") && !verbIs(op, "raise") {
		return nil
	}
	if !legalProperty.MatchString(prop) || !strings.Contains(prop, ":") || len(prop) > 255 ||
		len(value) > 8191 || strings.ContainsAny(value, "\x00\n\t") || !utf8.ValidString(value) {
		return Error("check", fmt.Sprintf("%q=%.60q (%d bytes)", prop, value, len(value)), zfs.ErrInvalid)
	}
	return nil
}
