package diff

import (
	"context"
	"path"
	"slices"
)

// Kind is the kind of a change.
type Kind string

const (
	Added    Kind = "added"
	Modified Kind = "modified"
	Deleted  Kind = "deleted"
	// Replaced is a directory that lost an attribute, which no layer can remove. The
	// layer has to create the directory again with everything in it.
	Replaced Kind = "replaced"
)

// changes receives what a comparison finds: a directory before its content, in each
// directory first the deletions, and otherwise by name.
type changes interface {
	// changed is called for a path of the later side. A directory that replaces
	// something else is Modified, and everything in it Added.
	changed(kind Kind, rel string, n node) error
	// deleted is called once for all names that a directory lost. emptied reports
	// whether it lost every name that it had.
	deleted(dir string, names []string, emptied bool) error
}

// comparison walks two snapshots side by side.
type comparison struct {
	ctx          context.Context
	lower, upper *tree // lower is nil if there is nothing to compare with
	hint         hint
	to           changes
	current      *current // the file that is being compared
}

// run compares the two snapshots.
func (c *comparison) run() error {
	if c.lower == nil {
		return c.addedBelow(".")
	}
	was, is, err := both(c, ".", (*tree).stat)
	if err != nil {
		return err
	}
	return c.pair(".", direntry{".", was.object, true}, direntry{".", is.object, true}, c.hint.paths)
}

// both reads something of a path on both sides.
func both[T any](c *comparison, rel string, read func(*tree, string) (T, error)) (was, is T, err error) {
	if was, err = read(c.lower, rel); err == nil {
		is, err = read(c.upper, rel)
	}
	return was, is, err
}

// pair compares the objects of one name on both sides. at holds the paths below the
// name that may have changed.
func (c *comparison) pair(rel string, was, is direntry, at *paths) error {
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	if was.object == is.object && !c.hint.changed(is.object) {
		if !is.dir || at == nil {
			return nil
		}
		return c.unchangedDir(rel, at)
	}
	old, now, err := both(c, rel, (*tree).stat)
	if err != nil {
		return err
	}
	kind, err := c.differ(rel, old, now)
	if err != nil {
		return err
	}
	if kind != "" {
		if err := c.to.changed(kind, rel, now); err != nil {
			return err
		}
	}
	switch {
	case now.isDir() && old.isDir() && kind != Replaced:
		return c.merge(rel, at)
	case now.isDir():
		return c.addedBelow(rel)
	}
	return nil
}

// unchangedDir compares the content of a directory whose names have not changed.
func (c *comparison) unchangedDir(rel string, at *paths) error {
	list, err := c.candidates(rel, at)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := c.pair(path.Join(rel, e.name), e, e, at.child(e.name)); err != nil {
			return err
		}
	}
	return nil
}

// candidates returns the names in a directory that may lead to a change.
func (c *comparison) candidates(rel string, at *paths) ([]direntry, error) {
	if at.all {
		return c.upper.readDir(c.ctx, rel)
	}
	var list []direntry
	for _, name := range at.names() {
		n, err := c.upper.stat(path.Join(rel, name))
		if err != nil {
			return nil, err
		}
		if !n.is(typeSocket) { // readDir omits sockets too
			list = append(list, direntry{name, n.object, n.isDir()})
		}
	}
	return list, nil
}

// merge compares two directories name by name.
func (c *comparison) merge(rel string, at *paths) error {
	was, is, err := both(c, rel, func(t *tree, rel string) ([]direntry, error) { return t.readDir(c.ctx, rel) })
	if err != nil {
		return err
	}
	if lost := missing(was, is); len(lost) > 0 {
		if err := c.to.deleted(rel, lost, len(lost) == len(was)); err != nil {
			return err
		}
	}
	for _, e := range is {
		for len(was) > 0 && was[0].name < e.name {
			was = was[1:]
		}
		here := path.Join(rel, e.name)
		if len(was) > 0 && was[0].name == e.name {
			err = c.pair(here, was[0], e, at.child(e.name))
		} else {
			err = c.added(here)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// missing returns the names of the sorted list was that the sorted list is lacks.
func missing(was, is []direntry) (names []string) {
	for _, e := range was {
		for len(is) > 0 && is[0].name < e.name {
			is = is[1:]
		}
		if len(is) == 0 || is[0].name != e.name {
			names = append(names, e.name)
		}
	}
	return names
}

// added reports a new path and everything below it.
func (c *comparison) added(rel string) error {
	n, err := c.upper.stat(rel)
	if err != nil {
		return err
	}
	if err := c.to.changed(Added, rel, n); err != nil || !n.isDir() {
		return err
	}
	return c.addedBelow(rel)
}

func (c *comparison) addedBelow(rel string) error {
	list, err := c.upper.readDir(c.ctx, rel)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := c.ctx.Err(); err != nil {
			return context.Cause(c.ctx)
		}
		if err := c.added(path.Join(rel, e.name)); err != nil {
			return err
		}
	}
	return nil
}

// differ compares everything of two nodes of one path that a layer can hold, and
// returns the kind of the change, or "". A node that was not touched is the same. A
// node that was touched may be the same: programs set times back, so its content
// decides.
//
// If lower is an ancestor of upper, equal number, birth and change times prove that a
// node was not touched. Otherwise they prove nothing, because two clones assign the
// same numbers, possibly within the same tick of the clock. Then everything is
// compared, with the same result.
//
// Numbers identify hard links independently of how the sides are related: two names
// that have the same number on both sides are links of one object on both sides or on
// neither. A linked name with another number is written.
func (c *comparison) differ(rel string, old, now node) (Kind, error) {
	switch {
	case c.hint.related && old.unchanged(now):
		return "", nil
	case now.isDir() && old.isDir():
		return c.directoriesDiffer(rel, old, now)
	case !old.sameAttributes(now),
		// The set of names of the object has changed.
		!old.sameObject(now) && (old.linked() || now.linked()):
		return Modified, nil
	}
	differ, err := c.dataDiffers(rel, now)
	if err == nil && !differ {
		differ, _, err = c.attributesDiffer(rel)
	}
	if differ {
		return Modified, err
	}
	return "", err
}

func (c *comparison) directoriesDiffer(rel string, old, now node) (Kind, error) {
	differ, lost, err := c.attributesDiffer(rel)
	switch {
	case err != nil:
		return "", err
	case lost && rel != ".":
		return Replaced, nil
	case differ || !old.sameAttributes(now):
		return Modified, nil
	}
	return "", nil
}

// attributesDiffer compares the extended attributes of a path one at a time, because
// those of one file may take gigabytes. lost reports whether an attribute was removed.
func (c *comparison) attributesDiffer(rel string) (differ, lost bool, err error) {
	before, after, err := both(c, rel, (*tree).attributeNames)
	if err != nil {
		return false, false, err
	}
	if !slices.Equal(before, after) {
		isLost := func(name string) bool { _, found := slices.BinarySearch(after, name); return !found }
		return true, slices.ContainsFunc(before, isLost), nil
	}
	for _, name := range after {
		was, is, err := both(c, rel, func(t *tree, rel string) (string, error) { return t.attribute(rel, name) })
		if err != nil || was != is {
			return true, false, err
		}
	}
	return false, false, nil
}

// dataDiffers compares the data of a path whose nodes have the same type and size.
func (c *comparison) dataDiffers(rel string, n node) (bool, error) {
	switch {
	case n.is(typeRegular):
		return c.contentDiffers(rel, n.size)
	case n.is(typeLink):
		was, is, err := both(c, rel, (*tree).readLink)
		return was != is, err
	}
	return false, nil
}
