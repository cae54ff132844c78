package recordlog

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// PositionProperty is the property of a base that holds the Position of its log.
const PositionProperty = layout.PropertyPrefix + "log"

// AppliedProperty is the property of a dataset that holds the Position up to which the
// dataset's properties have, or supersede, all entries for it.
const AppliedProperty = layout.PropertyPrefix + "log-applied"

// Errors of a log that does not belong to the state of the pool. The message of an error that
// wraps one has the details, see Check.
var (
	ErrMissing = errors.New("the log of the base is missing")
	ErrDamaged = errors.New("the log of the base is damaged")
	ErrOther   = errors.New("the log is of another base or another time")
)

// Position is a place in a log. The zero Position means that a base has no log.
type Position struct {
	ID  ID
	Seq uint64
}

// String returns the value of a property. Of two values of one log, the greater string is the
// later position.
func (p Position) String() string { return fmt.Sprintf("%s %020d", p.ID, p.Seq) }

// ParsePosition parses the value of a property; "" is the zero Position.
func ParsePosition(value string) (p Position, err error) {
	if value == "" {
		return p, nil
	}
	id, seq, ok := strings.Cut(value, " ")
	n, err := strconv.ParseUint(id, 16, 64)
	if ok && err == nil {
		p.ID = ID(n)
		p.Seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if !ok || err != nil || p.String() != value {
		return Position{}, fmt.Errorf("%q is not the position of a log", value)
	}
	return p, nil
}

// PositionIn returns the position of the log in a listing of the base.
func PositionIn(base layout.Base, list []zfs.Dataset) (Position, error) {
	for _, d := range list {
		if d.Name == base.String() {
			p, err := ParsePosition(d.Props[PositionProperty])
			if err != nil {
				return p, fmt.Errorf("property %s of %s: %w", PositionProperty, base, err)
			}
			return p, nil
		}
	}
	return Position{}, nil
}

// Check returns an error unless the log belongs to the state of the pool that has position.
// contents and err are the results of Read.
func Check(base layout.Base, position Position, contents *Contents, err error) error {
	if position == (Position{}) {
		return nil // the pool's state depends on no log
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = ErrMissing
	case err == nil && contents.ID != position.ID:
		err = fmt.Errorf("%w: it has the ID %s", ErrOther, contents.ID)
	case err == nil && contents.Last() < position.Seq:
		err = fmt.Errorf("%w: it ends with entry %d", ErrOther, contents.Last())
	case err == nil:
		return nil
	}
	return fmt.Errorf("file %s in the root directory of %s: %w; the pool needs log %s up to entry %d, which may be the only place that names some containers: "+
		"put the file back that belongs to this state of the pool, or accept the loss of these changes with 'zfstpl log discard': nothing is destroyed before",
		Name, base, err, position.ID, position.Seq)
}
