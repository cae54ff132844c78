//go:build linux

package minimal

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newFile(t *testing.T) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, file.Close()) })
	return file
}

func TestConcurrentRecordsShareASynchronisation(t *testing.T) {
	file := newFile(t)
	synctest.Test(t, func(t *testing.T) {
		var syncs atomic.Int32
		l := newLog(file, func() error {
			syncs.Add(1)
			time.Sleep(time.Second)
			return nil
		})
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { assert.NoError(t, l.Append(make([]byte, 400))) })
		}
		wg.Wait()
		// The first record does not wait for the others, which share the next one.
		assert.Equal(t, int32(2), syncs.Load())
	})
	info, err := file.Stat()
	require.NoError(t, err)
	assert.Equal(t, int64(16*400), info.Size())
}

func TestEachRecordIsSynchronisedAfterItIsAppended(t *testing.T) {
	file := newFile(t)
	var sizes []int64
	l := newLog(file, func() error {
		info, err := file.Stat()
		sizes = append(sizes, info.Size())
		return err
	})
	for range 3 {
		require.NoError(t, l.Append(make([]byte, 400)))
	}
	assert.Equal(t, []int64{400, 800, 1200}, sizes)
}

func TestNoRecordSucceedsAfterAFailedSynchronisation(t *testing.T) {
	broken := errors.New("broken")
	l := newLog(newFile(t), func() error { return broken })
	require.ErrorIs(t, l.Append([]byte("x")), broken)
	require.ErrorIs(t, l.Append([]byte("x")), broken)
}
