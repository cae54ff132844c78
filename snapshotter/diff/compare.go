package diff

import (
	"context"
	"path"
	"slices"
)

// Kind says what was done to a path.
type Kind string

const (
	Added    Kind = "added"
	Modified Kind = "modified"
	Deleted  Kind = "deleted"
	// Replaced is a directory of which something is gone that no layer can take
	// away, so that it has to be made anew, with all that is in it.
	Replaced Kind = "replaced"
)

// changes takes what a comparison finds, in this order: a directory before what
// is in it; in a directory, first what was deleted; and else by name.
type changes interface {
	// changed is for what is there now. A directory that replaces something
	// else is modified, and all in it added.
	changed(kind Kind, rel string, n node) error
	// deleted is for names that a directory no longer has, all of them at once.
	// emptied says that it has none left of those that it had.
	deleted(dir string, names []string, emptied bool) error
}

// comparison goes through two snapshots side by side.
type comparison struct {
	ctx          context.Context
	lower, upper *tree // lower is nil where there is nothing to compare with
	hint         hint
	to           changes
	current      *current // the file that is compared
}

// run compares all there is.
func (c *comparison) run() error {
	n, err := c.upper.stat(".")
	if err != nil {
		return err
	}
	root := direntry{".", n.object, true}
	if c.lower == nil {
		return c.addedBelow(".")
	}
	m, err := c.lower.stat(".")
	if err != nil {
		return err
	}
	return c.pair(".", direntry{".", m.object, true}, root, c.hint.paths)
}

// pair compares what a name stood for with what it stands for. at are the paths
// below it that are worth looking at.
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
	old, err := c.lower.stat(rel)
	if err != nil {
		return err
	}
	now, err := c.upper.stat(rel)
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

// unchangedDir looks into a directory whose names are what they were.
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

// worthwhile answers the names in a directory that may lead to a change.
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
		if !n.is(typeSocket) { // as readDir
			list = append(list, direntry{name, n.object, n.isDir()})
		}
	}
	return list, nil
}

// merge compares two directories name by name.
func (c *comparison) merge(rel string, at *paths) error {
	was, err := c.lower.readDir(c.ctx, rel)
	if err != nil {
		return err
	}
	is, err := c.upper.readDir(c.ctx, rel)
	if err != nil {
		return err
	}
	if gone := missing(was, is); len(gone) > 0 {
		if err := c.to.deleted(rel, gone, len(gone) == len(was)); err != nil {
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

// missing answers the names of one sorted list that another one lacks.
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

// added tells of something new and of all that is below it.
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

// differ compares all that a layer can hold of two nodes of one path, and answers
// what to say of it, or "". What was not touched since is the same; what was
// touched may be, and then its content decides: programs set times back.
//
// Between an ancestor and what came of it, number, birth and time of change prove
// that nothing was touched. Between others, or where that is not known, they prove
// nothing: two clones give out the same numbers, and do so in the same tick of the
// clock. There all is compared, with the same result.
//
// Which names are of one object, numbers tell whatever the sides are to each other:
// two names, each with the same number on both sides, are of one object on both
// sides or on neither. A linked name whose number is another one is written.
func (c *comparison) differ(rel string, old, now node) (Kind, error) {
	switch {
	case c.hint.related && old.unchanged(now):
		return "", nil
	case now.isDir() && old.isDir():
		return c.directoriesDiffer(rel, old, now)
	case !old.sameAttributes(now),
		// What else it is a name of has changed.
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

// attributesDiffer compares the extended attributes that a path had and has, one at a
// time: all of one file may take gigabytes. It also returns whether one is no longer
// there.
func (c *comparison) attributesDiffer(rel string) (differ, lost bool, err error) {
	before, err := c.lower.attributeNames(rel)
	if err != nil {
		return false, false, err
	}
	after, err := c.upper.attributeNames(rel)
	if err != nil {
		return false, false, err
	}
	if !slices.Equal(before, after) {
		isGone := func(name string) bool { _, there := slices.BinarySearch(after, name); return !there }
		return true, slices.ContainsFunc(before, isGone), nil
	}
	for _, name := range after {
		was, err := c.lower.attribute(rel, name)
		if err != nil {
			return false, false, err
		}
		is, err := c.upper.attribute(rel, name)
		if err != nil || was != is {
			return true, false, err
		}
	}
	return false, false, nil
}

// dataDiffers compares what is in two nodes of the same type and size.
func (c *comparison) dataDiffers(rel string, n node) (bool, error) {
	switch {
	case n.is(typeRegular):
		return c.contentDiffers(rel, n.size)
	case n.is(typeLink):
		return c.targetDiffers(rel)
	}
	return false, nil
}

func (c *comparison) targetDiffers(rel string) (bool, error) {
	was, err := c.lower.readLink(rel)
	if err != nil {
		return false, err
	}
	is, err := c.upper.readLink(rel)
	return was != is, err
}
