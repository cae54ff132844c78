package zfs

import "strconv"

// A verb is what an Op does. The words are the channel program's.
type verb string

const (
	verbSnapshot verb = "snapshot"
	verbClone    verb = "clone"
	verbPromote  verb = "promote"
	verbSet      verb = "set"
	verbInherit  verb = "inherit"
	verbQuota    verb = "quota" // no channel program's: a native property
)

// Op is one step of a transaction. Make one with Snapshot, Clone, Promote, Set,
// Inherit or Quota.
type Op struct {
	verb   verb
	name   string // the dataset or snapshot that is changed or made
	origin string // clone: the snapshot it comes from; promote: see Promote
	prop   string
	value  string
}

// Snapshot takes the snapshot name, "<file system>@<snapshot>".
func Snapshot(name string) Op { return Op{verb: verbSnapshot, name: name} }

// Clone makes the file system name as a clone of snapshot.
func Clone(snapshot, name string) Op { return Op{verb: verbClone, name: name, origin: snapshot} }

// Promote makes the clone name the owner of the snapshot it came from; former,
// the file system that owned it, becomes its clone. former is named so that
// the step can be taken back when a later one fails.
func Promote(name, former string) Op { return Op{verb: verbPromote, name: name, origin: former} }

// Set sets a user property of a file system.
func Set(name, prop, value string) Op {
	return Op{verb: verbSet, name: name, prop: prop, value: value}
}

// Inherit removes a user property from a file system. Removing what is not
// there succeeds.
func Inherit(name, prop string) Op { return Op{verb: verbInherit, name: name, prop: prop} }

// Quota bounds the bytes that a new clone may refer to, those of its origin
// included (refquota). It belongs behind the Clone of that name with nothing but
// Sets of it in between. It makes the list several transactions on every
// release, because channel programs set no native properties.
func Quota(name string, bytes uint64) Op {
	return Op{verb: verbQuota, name: name, prop: "refquota", value: strconv.FormatUint(bytes, 10)}
}

// native tells whether no channel program can do the op.
func (op Op) native() bool { return op.verb == verbQuota }

// sets tells whether the op sets a property, which a clone can take along.
func (op Op) sets() bool { return op.verb == verbSet || op.verb == verbQuota }

// Dataset answers the name of what the op makes or changes.
func (op Op) Dataset() string { return op.name }

// check refuses an op whose names or property ZFS should never see.
func (op Op) check() error {
	label := string(op.verb)
	switch op.verb {
	case verbSnapshot:
		return checkSnapshot(label, op.name)
	case verbClone:
		if err := checkSnapshot(label, op.origin); err != nil {
			return err
		}
		return checkFilesystem(label, op.name)
	case verbPromote:
		if err := checkFilesystem(label, op.origin); err != nil {
			return err
		}
		return checkFilesystem(label, op.name)
	case verbQuota:
		return checkFilesystem(label, op.name)
	default:
		if err := checkFilesystem(label, op.name); err != nil {
			return err
		}
		return checkProperty(label, op.name, op.prop, op.value)
	}
}

// words is the op as the channel program apply.lua reads it: five words.
func (op Op) words() []string {
	return []string{string(op.verb), op.name, op.origin, op.prop, op.value}
}

func checkOps(ops []Op) error {
	cloned := "" // what a Quota may stand behind
	for _, op := range ops {
		if err := op.check(); err != nil {
			return err
		}
		switch {
		case op.verb == verbClone:
			cloned = op.name
		case !op.sets() || op.name != cloned:
			cloned = ""
		}
		if op.verb == verbQuota && cloned == "" {
			return &Error{Op: string(op.verb), Dataset: op.name, Kind: ErrInvalid, Detail: "a quota belongs to a clone that is made in the same list"}
		}
	}
	return nil
}
