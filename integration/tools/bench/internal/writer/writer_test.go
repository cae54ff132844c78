package writer

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheWriterWritesUntilItIsStopped(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	written, err := Run(ctx, dir, func() error {
		time.AfterFunc(50*time.Millisecond, cancel)
		return nil
	})
	require.NoError(t, err)
	assert.Positive(t, written.Files)
	assert.Positive(t, written.Rate())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.NotEmpty(t, entries)
	assert.LessOrEqual(t, len(entries), Files)
}

func TestTheWriterReportsWhyItCannotWrite(t *testing.T) {
	_, err := Run(t.Context(), t.TempDir()+"/missing", func() error { return nil })
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestWrittenIsReadAgain(t *testing.T) {
	w := Written{Files: 120, Took: 61500 * time.Millisecond}
	again, err := Parse(w.String())
	require.NoError(t, err)
	assert.Equal(t, w, again)
	assert.InDelta(t, 31.22, again.Rate(), 0.01)
	_, err = Parse("nothing")
	require.Error(t, err)
}
