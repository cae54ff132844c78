package zfsfake

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Kind is what a call of the pool, or an operation of a transaction, does.
type Kind string

// All calls, and all transactions. Mark and Mount are calls and not transactions, because
// background goroutines call Mark at any time.
const (
	Call        Kind = "call"
	Transaction Kind = "transaction"
)

// The calls of the pool. Detach is the end of a mount that Attach made. Background goroutines
// end these mounts at any time, so Detach is not a Call. Neither is IntentLog.
const (
	Apply           Kind = "apply"
	Mark            Kind = "mark"
	Create          Kind = "create"
	Destroy         Kind = "destroy"
	DestroyForeign  Kind = "destroyforeign"
	DestroySnapshot Kind = "destroysnapshot"
	Flush           Kind = "flush"
	SetNative       Kind = "setnative"
	Mount           Kind = "mount"
	MountAt         Kind = "mountat"
	Detach          Kind = "detach"
	List            Kind = "list"
	Written         Kind = "written"
	Objects         Kind = "objects"
	Space           Kind = "space"
	PoolState       Kind = "state"
	WaitFreed       Kind = "wait"
	AttachRoot      Kind = "attachroot"
	AttachWritable  Kind = "attachwritable"
	ChangedObjects  Kind = "changedobjects"
	IntentLog       Kind = "intentlog"
)

// The operations of an Apply.
const (
	Snapshot Kind = "snapshot"
	Clone    Kind = "clone"
	Promote  Kind = "promote"
	Quota    Kind = "quota"
	Set      Kind = "set"
	Inherit  Kind = "inherit"
	Raise    Kind = "raise"
)

// operation is one thing that a call or a transaction does, and to which dataset or snapshot.
type operation struct {
	kind Kind
	name string
}

// event is the begin or the end of a call or of a transaction.
type event struct {
	after bool
	ops   []operation
}

// opsOf returns the operations of a list that Apply applies.
func opsOf(ops []zfs.Op) (list []operation) {
	for _, op := range ops {
		list = append(list, operation{Kind(opWord(op, "verb")), op.Dataset()})
	}
	return list
}

// eachOf returns the operations of a call of one kind.
func eachOf(kind Kind, names ...string) (list []operation) {
	for _, name := range names {
		list = append(list, operation{kind, name})
	}
	return list
}

func (e event) String() string {
	var words []string
	for _, op := range e.ops {
		if op.name != "" {
			words = append(words, fmt.Sprintf("%s of %s", op.kind, op.name))
		}
	}
	if len(words) == 0 && len(e.ops) > 0 {
		words = append(words, string(e.ops[0].kind))
	}
	return edge(e.after) + " " + strings.Join(words, ", ")
}

func edge(after bool) string {
	if after {
		return "after"
	}
	return "before"
}

// Point is a place in the work of a pool. Before and After return one.
type Point struct {
	after bool
	kinds []Kind
	names []string // empty for all datasets
	cut   *Cut     // of Each; nil for a point that is not enumerated
}

// Before returns the point before a call, or a transaction with an operation, of one of these
// kinds. A failure there replaces the call or the transaction.
func Before(kinds ...Kind) Point { return Point{kinds: kinds} }

// After returns the point after a call, or a transaction with an operation, of one of these
// kinds. A failure there replaces the result. A call that fails does not reach it.
func After(kinds ...Kind) Point { return Point{after: true, kinds: kinds} }

// Of returns the point for some datasets and their snapshots only.
func (at Point) Of(names ...string) Point {
	at.names = names
	return at
}

func (at Point) String() string {
	var kinds []string
	for _, kind := range at.kinds {
		kinds = append(kinds, string(kind))
	}
	text := edge(at.after) + " " + strings.Join(kinds, " or ")
	if len(at.names) > 0 {
		text += " of " + strings.Join(at.names, " or ")
	}
	return text
}

func (at Point) matches(e event) bool {
	return at.after == e.after && slices.ContainsFunc(e.ops, at.isOf)
}

func (at Point) isOf(op operation) bool {
	dataset, _, _ := strings.Cut(op.name, "@")
	return slices.Contains(at.kinds, op.kind) &&
		(len(at.names) == 0 || slices.Contains(at.names, op.name) || slices.Contains(at.names, dataset))
}
