package zfs

import "strconv"

// verb is what an Op does. apply.lua uses the same words.
type verb string

const (
	verbSnapshot verb = "snapshot"
	verbClone    verb = "clone"
	verbPromote  verb = "promote"
	verbSet      verb = "set"
	verbInherit  verb = "inherit"
	verbRaise    verb = "raise"
	verbQuota    verb = "quota" // not in channel programs: a native property
)

// Op is one step of a transaction. Snapshot, Clone, Promote, Set, Inherit, Raise and Quota
// return one.
type Op struct {
	verb   verb
	name   string // the dataset or snapshot that is changed or created
	origin string // of a clone: its origin; of a promote: see Promote
	prop   string
	value  string
}

// Snapshot takes the snapshot name, "<file system>@<snapshot>".
func Snapshot(name string) Op { return Op{verb: verbSnapshot, name: name} }

// Clone creates the file system name as a clone of snapshot.
func Clone(snapshot, name string) Op { return Op{verb: verbClone, name: name, origin: snapshot} }

// Promote makes the clone name the owner of its origin; former, the file system that
// owned the origin, becomes a clone of it. former is needed to roll the step back if a
// later one fails.
func Promote(name, former string) Op { return Op{verb: verbPromote, name: name, origin: former} }

// Set sets a user property of a file system.
func Set(name, prop, value string) Op {
	return Op{verb: verbSet, name: name, prop: prop, value: value}
}

// Inherit removes a user property from a file system. Removing a property that is not
// set succeeds.
func Inherit(name, prop string) Op { return Op{verb: verbInherit, name: name, prop: prop} }

// Raise sets a user property of a file system unless its value is greater, compared byte by
// byte. It is not rolled back if a later step fails.
func Raise(name, prop, value string) Op {
	return Op{verb: verbRaise, name: name, prop: prop, value: value}
}

// Quota bounds the bytes that a new clone may refer to, including those of its origin
// (refquota). It must follow the Clone of that name, with nothing but Sets of the
// clone in between. It makes a list several transactions on every release, because
// channel programs cannot set native properties.
func Quota(name string, bytes uint64) Op {
	return Op{verb: verbQuota, name: name, prop: "refquota", value: strconv.FormatUint(bytes, 10)}
}

// native reports whether channel programs cannot carry out the op.
func (op Op) native() bool { return op.verb == verbQuota }

// sets reports whether the op sets a property that a clone can include.
func (op Op) sets() bool { return op.verb == verbSet || op.verb == verbQuota }

// Property returns the user property that a Set or an Inherit changes, and its new value; nil
// if the property is removed. For other ops ok is false.
func (op Op) Property() (name string, value *string, ok bool) {
	switch op.verb {
	case verbSet:
		return op.prop, &op.value, true
	case verbInherit:
		return op.prop, nil, true
	}
	return "", nil, false
}

// Dataset returns the name of what the op creates or changes.
func (op Op) Dataset() string { return op.name }

// check returns an error for invalid names or properties.
func (op Op) check() error {
	label := string(op.verb)
	var err error
	switch op.verb {
	case verbSnapshot:
		return checkSnapshot(label, op.name)
	case verbClone:
		err = checkSnapshot(label, op.origin)
	case verbPromote:
		err = checkFilesystem(label, op.origin)
	case verbSet, verbInherit, verbRaise:
		err = checkProperty(label, op.name, op.prop, op.value)
	}
	if err != nil {
		return err
	}
	return checkFilesystem(label, op.name)
}

// words returns the op as apply.lua reads it: five words.
func (op Op) words() []string {
	return []string{string(op.verb), op.name, op.origin, op.prop, op.value}
}

// CheckOps returns an error if the name or property of an op is invalid.
func CheckOps(ops []Op) error { return checkOps(ops) }

func checkOps(ops []Op) error {
	cloned := "" // the clone that a Quota may follow
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
			return &Error{Op: string(op.verb), Dataset: op.name, Kind: ErrInvalid, Detail: "a quota must follow its clone in the same list"}
		}
	}
	return nil
}
