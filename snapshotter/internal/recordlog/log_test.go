package recordlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func testBase(t testing.TB) layout.Base {
	t.Helper()
	base, err := layout.ParseBase("tank/z")
	require.NoError(t, err)
	return base
}

func testDir(t testing.TB) Dir {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, root.Close()) })
	return Dir{Root: root}
}

// groups are changes of every form.
var groups = [][]zfs.Op{
	{zfs.Set("tank/z/runtime/web", "zfstpl:record:1", `1 {"name":"web","labels":{"a":"\u00e9 \\ \"<&>"}}`)},
	{zfs.Set("tank/z/storage/empty", "zfstpl:record:2:1", ""), zfs.Set("tank/z/storage/empty", "zfstpl:record:2", "2 x")},
	{zfs.Inherit("tank/z/runtime/web", "zfstpl:record:1")},
	{zfs.Set("tank/z/storage/a", "zfstpl:record:3", "1 y"), zfs.Inherit("tank/z/runtime/web", "zfstpl:record:4")},
}

// written returns a log with groups, and its bytes.
func written(t testing.TB, d Dir) (*Log, []byte) {
	t.Helper()
	l, err := d.Create(testBase(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() }) // a test may have closed it
	_, err = l.Write(groups)
	require.NoError(t, err)
	require.NoError(t, l.Sync())
	return l, bytesOf(t, d)
}

func bytesOf(t testing.TB, d Dir) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(d.Root.Name(), Name))
	require.NoError(t, err)
	return b
}

func put(t testing.TB, d Dir, b []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(d.Root.Name(), Name), b, 0o600))
}

func opsIn(c *Contents) (all [][]zfs.Op) {
	for _, e := range c.Entries {
		all = append(all, e.Ops)
	}
	return all
}

func TestLogReturnsWhatWasWritten(t *testing.T) {
	t.Parallel()
	d := testDir(t)
	l, _ := written(t, d)
	c, err := d.Read(testBase(t))
	require.NoError(t, err)
	assert.Equal(t, groups, opsIn(c))
	assert.Equal(t, l.Position(), Position{c.ID, c.Last()})

	// The owner continues where the last one ended.
	again, err := d.Open(testBase(t), c)
	require.NoError(t, err)
	first, err := again.Write(groups[:1])
	require.NoError(t, err)
	assert.Equal(t, c.Last()+1, first)
	require.NoError(t, again.Close())
	c, err = d.Read(testBase(t))
	require.NoError(t, err)
	assert.Len(t, c.Entries, len(groups)+1)
}

// A base that was renamed keeps its log.
func TestLogIsThatOfTheBaseUnderAnyName(t *testing.T) {
	t.Parallel()
	d := testDir(t)
	written(t, d)
	base, err := layout.ParseBase("other/name")
	require.NoError(t, err)
	c, err := d.Read(base)
	require.NoError(t, err)
	assert.Equal(t, "other/name/runtime/web", c.Entries[0].Ops[0].Dataset())
}

// A log that was cut anywhere has a prefix of its entries, and its owner appends after them.
func TestTornLogEndsBeforeTheTornEntry(t *testing.T) {
	t.Parallel()
	d := testDir(t)
	_, whole := written(t, d)
	all, err := decode(whole, testBase(t))
	require.NoError(t, err)
	for n := headerSize; n < len(whole); n++ {
		put(t, d, whole[:n])
		c, err := d.Read(testBase(t))
		require.NoError(t, err, "%d bytes", n)
		require.Less(t, len(c.Entries), len(groups), "%d bytes", n)
		require.Equal(t, all.Entries[:len(c.Entries)], append([]Entry{}, c.Entries...), "%d bytes", n)
		l, err := d.Open(testBase(t), c)
		require.NoError(t, err)
		_, err = l.Write(groups[2:3])
		require.NoError(t, err)
		require.NoError(t, l.Close())
		after, err := d.Read(testBase(t))
		require.NoError(t, err, "%d bytes", n)
		require.Len(t, after.Entries, len(c.Entries)+1, "%d bytes", n)
	}
	for n := range headerSize {
		put(t, d, whole[:n])
		_, err := d.Read(testBase(t))
		require.ErrorIs(t, err, ErrDamaged, "%d bytes", n)
	}
}

// Any byte that changed is found. No change of one byte looks like the end of the log.
func TestEveryFlippedByteIsAnError(t *testing.T) {
	t.Parallel()
	d := testDir(t)
	_, whole := written(t, d)
	for i := range whole {
		for _, flip := range []byte{1, 0x80, 0xff} {
			b := append([]byte{}, whole...)
			b[i] ^= flip
			_, err := decode(b, testBase(t))
			require.Error(t, err, "byte %d ^ %#x", i, flip)
		}
	}
}

// An entry whose checksums are right cannot name a dataset that is not below the base.
func TestEntryOfAnotherDatasetIsDamaged(t *testing.T) {
	t.Parallel()
	_, err := appendEntry(nil, testBase(t), Entry{1, []zfs.Op{zfs.Set("tank/other", "zfstpl:x", "y")}})
	require.ErrorContains(t, err, "tank/other")
	_, err = appendEntry(nil, testBase(t), Entry{1, []zfs.Op{zfs.Snapshot("tank/z/runtime/a@b")}})
	require.ErrorContains(t, err, "not a change of a property")
	for _, name := range []string{"../other", "runtime/a@b", "", "runtime/\x00"} {
		b, err := appendEntry(nil, testBase(t), Entry{1, []zfs.Op{zfs.Set("tank/z/"+name, "zfstpl:x", "y")}})
		require.NoError(t, err)
		_, _, err = decodeEntry(b, testBase(t))
		require.ErrorIs(t, err, ErrDamaged, name)
	}
}

// The position survives a truncation: the base must not need entries that the log has not.
func TestTruncatedLogKeepsItsPosition(t *testing.T) {
	t.Parallel()
	d := testDir(t)
	l, _ := written(t, d)
	before := l.Position()
	require.NoError(t, l.Truncate())
	assert.Len(t, bytesOf(t, d), headerSize)
	c, err := d.Read(testBase(t))
	require.NoError(t, err)
	assert.Empty(t, c.Entries)
	assert.Equal(t, before, Position{c.ID, c.Last()})
	require.NoError(t, Check(testBase(t), before, c, nil))
	first, err := l.Write(groups[:1])
	require.NoError(t, err)
	assert.Equal(t, before.Seq+1, first)
}

// fault is a file whose next writes fail.
type fault struct {
	File
	write, truncate, sync error
	short                 int // how much of a failed write is written
}

func (f *fault) WriteAt(b []byte, at int64) (int, error) {
	if f.write == nil {
		return f.File.WriteAt(b, at)
	}
	n, err := f.File.WriteAt(b[:min(f.short, len(b))], at)
	return n, errors.Join(err, f.write)
}

func (f *fault) Truncate(size int64) error {
	if f.truncate != nil {
		return f.truncate
	}
	return f.File.Truncate(size)
}

func (f *fault) Datasync() error {
	if f.sync != nil {
		return f.sync
	}
	return f.File.Datasync()
}

// A write that fails leaves nothing, and the next one follows the last entry that is complete.
func TestFailedWriteLeavesNothing(t *testing.T) {
	t.Parallel()
	d := testDir(t)
	var f *fault
	d.Wrap = func(file File) File { f = &fault{File: file}; return f }
	l, _ := written(t, d)
	full := errors.New("no space left")
	f.write, f.short = full, 30
	_, err := l.Write(groups[:2])
	require.ErrorIs(t, err, full)
	assert.False(t, l.Broken())
	f.write = nil
	first, err := l.Write(groups[:1])
	require.NoError(t, err)
	assert.EqualValues(t, len(groups)+1, first)
	c, err := d.Read(testBase(t))
	require.NoError(t, err)
	assert.Len(t, c.Entries, len(groups)+1)

	// If what it left cannot be removed, nothing is written after it until the file is replaced.
	f.write, f.truncate = full, full
	_, err = l.Write(groups[:1])
	require.ErrorIs(t, err, full)
	assert.True(t, l.Broken())
	f.write = nil
	_, err = l.Write(groups[:1])
	require.Error(t, err)
	require.NoError(t, l.Truncate())
	_, err = l.Write(groups[:1])
	require.NoError(t, err)
}

func TestLogIsReplacedAtomically(t *testing.T) {
	t.Parallel()
	d := testDir(t)
	var f *fault
	failed := errors.New("input/output error")
	l, before := written(t, d)
	l.dir.Wrap = func(file File) File { f = &fault{File: file, sync: failed}; return f }
	require.ErrorIs(t, l.Truncate(), failed)
	assert.Equal(t, before, bytesOf(t, d), "the old log stays")
	l.dir.Wrap = nil
	require.NoError(t, l.Truncate())
}

// A log belongs to the pool if the base's property says so.
func TestCheckFindsALogOfAnotherState(t *testing.T) {
	t.Parallel()
	d := testDir(t)
	l, _ := written(t, d)
	c, err := d.Read(testBase(t))
	require.NoError(t, err)
	end := l.Position()
	for what, test := range map[string]struct {
		position Position
		contents *Contents
		err      error
		want     error
	}{
		"no log":                          {Position{}, nil, fs.ErrNotExist, nil},
		"a log that no change depends on": {Position{}, c, nil, nil},
		"the log":                         {end, c, nil, nil},
		"the log, further on":             {Position{end.ID, 1}, c, nil, nil},
		"missing":                         {end, nil, fs.ErrNotExist, ErrMissing},
		"damaged":                         {end, nil, fmt.Errorf("%w: x", ErrDamaged), ErrDamaged},
		"another base's":                  {Position{end.ID + 1, 0}, c, nil, ErrOther},
		"an older copy":                   {Position{end.ID, end.Seq + 1}, c, nil, ErrOther},
	} {
		err := Check(testBase(t), test.position, test.contents, test.err)
		if test.want == nil {
			require.NoError(t, err, what)
			continue
		}
		require.ErrorIs(t, err, test.want, what)
		require.ErrorContains(t, err, "zfstpl log discard", what)
	}
}

func TestPositionsOfALogSortAsStrings(t *testing.T) {
	t.Parallel()
	last := Position{ID: 7}.String()
	for _, p := range []Position{{7, 1}, {7, 9}, {7, 10}, {7, 1 << 40}, {8, 0}, {1 << 60, 1}} {
		assert.Greater(t, p.String(), last)
		last = p.String()
		parsed, err := ParsePosition(last)
		require.NoError(t, err)
		assert.Equal(t, p, parsed)
	}
	for _, bad := range []string{"7", "7 1", last + " ", "x " + last, last[:len(last)-1]} {
		_, err := ParsePosition(bad)
		require.Error(t, err, bad)
	}
}
