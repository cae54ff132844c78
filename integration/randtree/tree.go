//go:build linux

package randtree

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Tree is a directory that is being changed at random.
type Tree struct {
	root string
	r    *rand.Rand
	free []int // the numbers of names that were not used yet
	used int
	// Done are the edits that were made, to explain why two
	// trees differ.
	Done []string
	// Held are files that were deleted while they are open. Close them.
	Held []*os.File
}

// New returns a tree in an empty directory.
func New(root string, seed uint64) *Tree {
	return &Tree{root: root, r: rand.New(rand.NewPCG(seed, 0))}
}

// At returns the same tree, to go on with, where it is found elsewhere now.
func (t *Tree) At(root string) { t.root = root }

// Grow makes n files, directories and so on.
func (t *Tree) Grow(n int) error {
	for range n {
		if err := t.do(edits[t.r.IntN(creating)]); err != nil {
			return err
		}
	}
	return nil
}

// Edit does n things to the tree.
func (t *Tree) Edit(n int) error {
	for range n {
		if err := t.do(edits[t.r.IntN(len(edits))]); err != nil {
			return err
		}
	}
	return nil
}

// Close closes what is open.
func (t *Tree) Close() error {
	var errs []error
	for _, f := range t.Held {
		errs = append(errs, f.Close())
	}
	t.Held = nil
	return errors.Join(errs...)
}

func (t *Tree) do(e edit) error {
	if e.root && os.Geteuid() != 0 {
		return nil
	}
	path, err := e.do(t)
	if err != nil {
		return fmt.Errorf("%s %q: %w", e.name, path, err)
	}
	if path != "" {
		t.Done = append(t.Done, fmt.Sprintf("%s %q", e.name, path[len(t.root):]))
	}
	return nil
}

// odd names are those that programs stumble over.
var odd = []string{
	"with space", "new\nline", "tab\t", "-rf", "ünïcode", "日本", "raw\xff\xfebytes", `back\slash`, "quote'\"", "...",
	".hidden", "a=b", "*", "%s", "trailing ", "\x01", "@snap", "<xattrdir>", "(on_delete_queue)", "\\0040",
}

// name returns a name that is not in use, or was once.
func (t *Tree) name() string {
	t.used++
	n := t.used
	if len(t.free) > 0 && t.r.IntN(3) == 0 {
		i := t.r.IntN(len(t.free))
		n, t.free = t.free[i], slices.Delete(t.free, i, i+1)
	}
	if t.r.IntN(4) == 0 {
		return fmt.Sprintf("%s%d", odd[n%len(odd)], n)
	}
	return fmt.Sprintf("f%d", n)
}

// fresh returns a path that stands for nothing.
func (t *Tree) fresh() (string, error) {
	for {
		dir, err := t.pick(true, func(m fs.FileMode) bool { return m.IsDir() })
		if err != nil {
			return "", err
		}
		path := filepath.Join(dir, t.name())
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
	}
}

// pick returns a path at random of a type, or "" where there is none.
func (t *Tree) pick(withRoot bool, of func(fs.FileMode) bool) (string, error) {
	var found []string
	err := filepath.WalkDir(t.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if of(d.Type()) && (withRoot || path != t.root) {
			found = append(found, path)
		}
		return nil
	})
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[t.r.IntN(len(found))], nil
}

func (t *Tree) file() (string, error) {
	return t.pick(false, func(m fs.FileMode) bool { return m.IsRegular() })
}

func (t *Tree) dir() (string, error) {
	return t.pick(false, func(m fs.FileMode) bool { return m.IsDir() })
}

func (t *Tree) any() (string, error) {
	return t.pick(false, func(m fs.FileMode) bool { return m&fs.ModeSocket == 0 })
}

func (t *Tree) bytes(most int) []byte {
	b := make([]byte, t.r.IntN(most))
	for i := range b {
		b[i] = byte(t.r.Uint32())
	}
	return b
}

// time returns a moment of the last years; one in two of a whole second, as
// archives set them.
func (t *Tree) time() unix.Timespec {
	at := time.Unix(1_600_000_000+t.r.Int64N(100_000_000), 0)
	if t.r.IntN(2) == 0 {
		at = at.Add(time.Duration(t.r.Int64N(1e9)))
	}
	return unix.NsecToTimespec(at.UnixNano())
}

func setTime(path string, at unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

func timeOf(path string) (unix.Timespec, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return st.Mtim, err
}
