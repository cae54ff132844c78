package diff

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// The names and prefixes that a layer uses for deletions and attributes.
const (
	whiteout = ".wh."         // prefix of the name that was deleted
	opaque   = ".wh..wh..opq" // in a directory of which every name was deleted
	xattrKey = "SCHILY.xattr."
)

// layer writes changes as the tar of an OCI layer: each change with its parent
// directories, deletions as whiteouts, and hard links as such. The same changes give
// the same bytes.
type layer struct {
	ctx    context.Context
	tar    *tar.Writer
	to     *sink
	tree   *tree // the later side
	epoch  *time.Time
	limits *limits
	// current is the file whose content is being written.
	current *current
	// above are the directories that were written and lead to the last entry,
	// beginning at the root.
	above []directory
	// links are the objects with several names of which some were written, by number.
	links map[uint64]*links
}

// directory is a directory that was written.
type directory struct {
	rel    string
	object uint64 // 0 for the root
	// hasDefaultACL is true if files that are created in the directory inherit an ACL.
	hasDefaultACL bool
}

// links are the names of an object that were written, the first one with its content.
// There may be very many, so a path is kept as its directory and a name in it.
type links struct {
	node  node
	dir   string // of the first name
	first string
	names map[place]bool
}

// place is a name in a directory.
type place struct {
	dir  uint64
	name string
}

// place returns the place of a path in the directory.
func (d directory) place(rel string) place { return place{d.object, strings.Clone(path.Base(rel))} }

// complete reports whether all names of the object were written.
func (k *links) complete() bool { return uint32(len(k.names)) >= k.node.links }

func newLayer(ctx context.Context, w io.Writer, upper *tree, epoch *time.Time) *layer {
	to := &sink{w: w}
	return &layer{ctx: ctx, tar: tar.NewWriter(to), to: to, tree: upper, epoch: epoch, limits: newLimits(), links: make(map[uint64]*links)}
}

// sink is the destination of a layer. failed distinguishes an error of the destination
// from one of an entry that cannot be written.
type sink struct {
	w      io.Writer
	failed bool
}

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.failed = s.failed || err != nil
	return n, err
}

// changed writes a path as it is on the later side.
func (l *layer) changed(kind Kind, rel string, n node) error {
	if rel == "." {
		return nil // a layer has no entry for the root
	}
	if err := l.parents(rel); err != nil {
		return err
	}
	if kind != Replaced {
		return l.entry(rel, n)
	}
	// Some appliers remove the directory because of the whiteout, others ignore
	// its old content because of the opaque mark.
	if err := l.whiteout(path.Join(path.Dir(rel), whiteout+path.Base(rel))); err != nil {
		return err
	}
	if err := l.entry(rel, n); err != nil {
		return err
	}
	return l.whiteout(path.Join(rel, opaque))
}

// deleted writes whiteouts.
func (l *layer) deleted(dir string, names []string, emptied bool) error {
	if err := l.parents(path.Join(dir, names[0])); err != nil {
		return err
	}
	for _, name := range names {
		// The whiteout of ".wh..opq" would mean that all names were deleted.
		if err := l.checkWhiteoutName(path.Join(dir, name), "it was deleted; create it again"); err != nil {
			return err
		}
	}
	// overlayfs ignores an opaque mark in the root of a layer.
	if emptied && len(names) > 1 && dir != "." {
		return l.whiteout(path.Join(dir, opaque))
	}
	for _, name := range names {
		if err := l.whiteout(path.Join(dir, whiteout+name)); err != nil {
			return err
		}
	}
	return nil
}

// adviceRename is what to do about a name that a layer cannot hold.
const adviceRename = "rename or delete it"

// adviceShrink is what to do about an entry that is too large for a layer.
const adviceShrink = "delete it, or make it smaller"

// checkWhiteoutName returns an error for a name that a layer would take for a
// whiteout, and for a path that is too long for Apply.
func (l *layer) checkWhiteoutName(rel, advice string) error {
	switch {
	case strings.HasPrefix(path.Base(rel), whiteout):
		return l.refuse(rel, fmt.Errorf("a layer uses names that begin with %q for deletions", whiteout), advice)
	case len(rel) > pathLimit:
		return l.refuse(rel, fmt.Errorf("its path has %d bytes, more than the %d that a layer can hold", len(rel), pathLimit), advice)
	}
	return nil
}

// refuse returns the error for a path that a layer cannot hold: the reason and what to
// do about it.
func (l *layer) refuse(rel string, reason error, advice string) error {
	return fmt.Errorf("%q in %s cannot be part of an image: %w (%s): %w", rel, l.tree.name, reason, advice, errdefs.ErrFailedPrecondition)
}

func (l *layer) whiteout(rel string) error {
	return l.write(&tar.Header{Typeflag: tar.TypeReg, Name: rel, ModTime: time.Unix(0, 0)})
}

// parents writes the parent directories of a path, except those that the previous
// entry was below too. An applier sets the times of directories at its end, after
// everything that changes them.
func (l *layer) parents(rel string) error {
	dir := path.Dir(rel)
	for !inside(dir, l.last().rel) {
		l.above = l.above[:len(l.above)-1]
	}
	for at := l.last().rel; at != dir; {
		name, _, _ := strings.Cut(strings.TrimPrefix(dir, prefix(at)), "/")
		at = path.Join(at, name)
		n, err := l.tree.stat(at)
		if err != nil {
			return err
		}
		if err := l.entry(at, n); err != nil {
			return err
		}
	}
	return nil
}

// last returns the innermost directory that was written.
func (l *layer) last() directory {
	if len(l.above) == 0 {
		return directory{rel: "."}
	}
	return l.above[len(l.above)-1]
}

// inside reports whether a path is a directory or below it.
func inside(rel, dir string) bool {
	return dir == "." || rel == dir || strings.HasPrefix(rel, prefix(dir))
}

// prefix returns the prefix of the paths in a directory.
func prefix(dir string) string {
	if dir == "." {
		return ""
	}
	return dir + "/"
}

// entry writes a path whose parents were written.
func (l *layer) entry(rel string, n node) error {
	if err := l.checkWhiteoutName(rel, adviceRename); err != nil {
		return err
	}
	if n.linked() {
		if first := l.links[n.object]; first != nil {
			return l.link(rel, first)
		}
		at := l.last().place(rel)
		l.links[n.object] = &links{node: n, dir: l.last().rel, first: at.name, names: map[place]bool{at: true}}
	}
	h, err := l.header(rel, n)
	if err != nil {
		return err
	}
	if err := l.write(h); err != nil {
		return err
	}
	switch {
	case n.isDir():
		_, hasDefaultACL := h.PAXRecords[xattrKey+defaultACL]
		l.above = append(l.above, directory{rel, n.object, hasDefaultACL})
	case n.is(typeRegular) && n.size > 0:
		return l.content(rel, n.size)
	}
	return nil
}

// link writes one more name of an object. It repeats everything that is known of the
// object: an applier sets the owner with every entry, which removes capabilities.
func (l *layer) link(rel string, known *links) error {
	if err := l.checkWhiteoutName(rel, adviceRename); err != nil {
		return err
	}
	known.names[l.last().place(rel)] = true
	if known.complete() {
		delete(l.links, known.node.object)
	}
	h, err := l.header(rel, known.node)
	if err != nil {
		return err
	}
	h.Typeflag, h.Linkname, h.Size = tar.TypeLink, path.Join(known.dir, known.first), 0
	return l.write(h)
}

func (l *layer) header(rel string, n node) (*tar.Header, error) {
	h := &tar.Header{
		Name: rel, Mode: int64(n.mode &^ typeMask), Uid: int(n.uid), Gid: int(n.gid), ModTime: n.mtime,
	}
	switch n.mode & typeMask {
	case typeRegular:
		h.Typeflag, h.Size = tar.TypeReg, n.size
	case typeDir:
		h.Typeflag, h.Name = tar.TypeDir, rel+"/"
	case typeLink:
		h.Typeflag = tar.TypeSymlink
		target, err := l.tree.readLink(rel)
		if err != nil {
			return nil, err
		}
		if err := checkTarget(target); err != nil {
			return nil, l.refuse(rel, err, "delete it")
		}
		h.Linkname = target
	case typeChar, typeBlock:
		h.Typeflag = tar.TypeChar
		if n.is(typeBlock) {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(n.major), int64(n.minor)
	case typeFifo:
		h.Typeflag = tar.TypeFifo
	default:
		return nil, l.refuse(rel, fmt.Errorf("it has type %o", n.mode&typeMask), "delete it")
	}
	var err error
	if h.PAXRecords, err = l.attributes(rel); err != nil {
		return nil, err
	}
	if l.last().hasDefaultACL {
		h.PAXRecords = withExplicitACLs(h.PAXRecords, n)
	}
	return h, nil
}

// attributes returns the extended attributes of a path as records of an entry. It reads
// no more of them than an entry can hold.
func (l *layer) attributes(rel string) (map[string]string, error) {
	names, err := l.tree.attributeNames(rel)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	attributes, size := make(map[string]string, len(names)), 0
	for _, name := range names {
		value, err := l.tree.attribute(rel, name)
		if err != nil {
			return nil, err
		}
		if size += len(xattrKey) + len(name) + len(value); size > recordLimit {
			return nil, l.refuse(rel, fmt.Errorf("its extended attributes have more than %d bytes", recordLimit), "remove some of them")
		}
		attributes[xattrKey+name] = value
	}
	return attributes, nil
}

// write writes a header.
func (l *layer) write(h *tar.Header) error {
	if err := l.ctx.Err(); err != nil {
		return context.Cause(l.ctx)
	}
	if l.epoch != nil && h.ModTime.After(*l.epoch) {
		h.ModTime = *l.epoch
	}
	h.Format = tar.FormatPAX
	if err := l.limits.take(h); err != nil {
		return l.refuse(path.Clean(h.Name), err, adviceShrink)
	}
	err := l.tar.WriteHeader(h)
	switch {
	case err == nil:
		return nil
	case l.to.failed:
		return fmt.Errorf("%q in %s: %w", h.Name, l.tree.name, err)
	}
	return l.refuse(path.Clean(h.Name), err, adviceShrink)
}

// close ends a layer. It first writes the remaining names, changed or not, of the
// objects of which some names were written: otherwise an applier would split the
// object.
func (l *layer) close() error {
	missing := make(map[uint64]*links)
	for object, known := range l.links {
		if !known.complete() {
			missing[object] = known
		}
	}
	if len(missing) > 0 {
		if err := l.otherNames(directory{rel: "."}, missing); err != nil {
			return err
		}
	}
	return l.tar.Close()
}

// otherNames writes the names in a directory, and below it, of objects whose names are
// incomplete.
func (l *layer) otherNames(dir directory, of map[uint64]*links) error {
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	list, err := l.tree.readDir(l.ctx, dir.rel)
	if err != nil {
		return err
	}
	for _, e := range list {
		rel := path.Join(dir.rel, e.name)
		if e.dir {
			if err := l.otherNames(directory{rel: rel, object: e.object}, of); err != nil {
				return err
			}
			continue
		}
		known := of[e.object]
		if known == nil || known.names[place{dir.object, e.name}] {
			continue
		}
		if err := l.parents(rel); err != nil {
			return err
		}
		if err := l.link(rel, known); err != nil {
			return err
		}
	}
	return nil
}
