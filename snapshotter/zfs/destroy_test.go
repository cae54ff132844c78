package zfs

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDestroyReturnsAnErrorForEachDatasetLeft(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^program", Out: `{"return":{"POOL/a":1001,"POOL/b":1002,"POOL/c":16}}`})
	p := f.pool
	left, err := f.client(true).Destroy(t.Context(), "extracted", []string{p + "/a", p + "/b", p + "/c", p + "/d"})
	require.NoError(t, err)
	require.Len(t, left, 3)
	assertKind(t, ErrHasClones, left[p+"/a"])
	assertKind(t, ErrForeign, left[p+"/b"])
	assertKind(t, ErrBusy, left[p+"/c"])
	calls := f.calls(t)
	require.Len(t, calls, 1)
	assert.Equal(t, destroyScript, calls[0].Stdin)
	assert.Equal(t, []string{"extracted", TemporaryPrefix, p + "/a", p + "/b", p + "/c", p + "/d"}, programWords(t, f, calls[0]), "in the order given")
}

// Lua's empty table is an empty object or no result at all.
func TestDestroyAcceptsAnEmptyResult(t *testing.T) {
	t.Parallel()
	for _, out := range []string{`{"return":{}}`, `{}`, "{\n}\n"} {
		f := newFake(t, result{Match: "^program", Out: out})
		left, err := f.client(true).Destroy(t.Context(), "extracted", []string{f.pool + "/a"})
		require.NoError(t, err, out)
		assert.Empty(t, left, out)
	}
}

func TestDestroyRunsInBatches(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^program", Out: `{}`})
	var names []string
	for i := range 2*destroyBatch + 1 {
		names = append(names, fmt.Sprintf("%s/%d", f.pool, i))
	}
	_, err := f.client(true).Destroy(t.Context(), "extracted", names)
	require.NoError(t, err)
	var all []string
	for i, c := range f.calls(t) {
		words := programWords(t, f, c)
		assert.Equal(t, []string{"extracted", TemporaryPrefix}, words[:2])
		assert.LessOrEqual(t, len(words), 2+destroyBatch, "batch %d", i)
		all = append(all, words[2:]...)
	}
	assert.Equal(t, names, all)
}

func TestDestroyRunsNothingForInvalidNames(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^program", Out: `{}`})
	c := f.client(true)
	for _, bad := range []string{"-r", "bad name", "elsewhere/a", f.pool + "2/a", f.pool + "/a@x", ""} {
		left, err := c.Destroy(t.Context(), "extracted", []string{f.pool + "/good", bad})
		assertKind(t, ErrInvalid, err)
		assert.Empty(t, left)
	}
	_, err := c.Destroy(t.Context(), "", []string{f.pool + "/a"})
	assertKind(t, ErrInvalid, err)
	_, err = c.Destroy(t.Context(), "x", nil)
	assert.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Destroy(ctx, "extracted", []string{f.pool + "/a"})
	assert.ErrorIs(t, err, context.Canceled, "Destroy can be cancelled before the first batch")
	assert.Empty(t, f.calls(t))
}

func TestDestroyReturnsAnErrorOfTheProgram(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^program", Status: 1, Err: "cannot open 'x': pool I/O is currently suspended\n"})
	_, err := f.client(true).Destroy(t.Context(), "extracted", []string{f.pool + "/a"})
	assertKind(t, ErrSuspended, err)
}

func TestDestroySnapshotReturnsErrorsWithKinds(t *testing.T) {
	t.Parallel()
	f := newFake(t,
		result{Match: "@held$", Out: `{"return":{"errno":16}}`},
		result{Match: "@odd$", Out: `what`},
		result{Match: "^program", Out: `{"return":{"errno":0}}`})
	c := f.client(true)
	require.NoError(t, c.DestroySnapshot(t.Context(), f.pool+"/a@x"))
	assert.Equal(t, []string{f.pool + "/a@x"}, programWords(t, f, f.calls(t)[0]))
	assertKind(t, ErrBusy, c.DestroySnapshot(t.Context(), f.pool+"/a@held"))
	assert.Error(t, c.DestroySnapshot(t.Context(), f.pool+"/a@odd"))
	f.calls(t)
	for _, bad := range []string{f.pool + "/a", "-r@x", f.pool + "/a@x@y", f.pool + "/a@"} {
		assertKind(t, ErrInvalid, c.DestroySnapshot(t.Context(), bad))
	}
	assert.Empty(t, f.calls(t))
}

// A name in another pool is refused, as by Apply and Destroy.
func TestDestroySnapshotRefusesOtherPools(t *testing.T) {
	t.Parallel()
	f, other := newFake(t, done), newFake(t, done)
	assertKind(t, ErrInvalid, f.client(true).DestroySnapshot(t.Context(), other.pool+"/a@x"))
	assert.Empty(t, f.calls(t))
	assert.Empty(t, other.calls(t))
}
