package diff

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The data and the error at its end are those of the underlying reader: a truncated
// layer must not look like a complete one.
func TestReadAheadReturnsTheSameDataAndError(t *testing.T) {
	t.Parallel()
	truncated := errors.New("truncated")
	for _, size := range []int{0, 1, 63, 64, 65, 1000} {
		content := make([]byte, size)
		_, err := rand.NewChaCha8([32]byte{}).Read(content)
		require.NoError(t, err)
		for what, end := range map[string]error{"complete": nil, "truncated": truncated, "unexpected EOF": io.ErrUnexpectedEOF} {
			for how, r := range map[string]io.Reader{
				"at once":       bytes.NewReader(content),
				"byte by byte":  iotest.OneByteReader(bytes.NewReader(content)),
				"data with EOF": iotest.DataErrReader(bytes.NewReader(content)),
				"short reads":   iotest.HalfReader(bytes.NewReader(content)),
			} {
				if end != nil {
					r = io.MultiReader(r, iotest.ErrReader(end))
				}
				a := readAhead(r, 64, 2)
				got, err := io.ReadAll(iotest.HalfReader(a))
				assert.True(t, errors.Is(err, end), "%d bytes, %s, %s: %v", size, what, how, err)
				assert.True(t, bytes.Equal(content, got), "%d bytes, %s, %s", size, what, how)
				_, err = a.Read(make([]byte, 1))
				assert.Error(t, err, "after the end")
				require.NoError(t, a.Close())
			}
		}
	}
}

// Close before the end stops the reading.
func TestReadAheadReadsNothingAfterClose(t *testing.T) {
	t.Parallel()
	var read counter
	a := readAhead(io.TeeReader(strings.NewReader(strings.Repeat("x", 10_000)), &read), 100, 3)
	_, err := io.ReadFull(a, make([]byte, 150))
	require.NoError(t, err)
	require.NoError(t, a.Close())
	assert.LessOrEqual(t, int(read), 500, "two blocks that were read, and three blocks ahead")
}

// A Read that waits for a block returns when the reader is closed.
func TestReadAheadCloseEndsAWaitingRead(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	var calls int
	a := readAhead(readerFunc(func(p []byte) (int, error) {
		if calls++; calls == 1 {
			close(entered)
		}
		<-release
		return len(p), nil
	}), 100, 1)
	<-entered
	read := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, a)
		read <- err
	}()
	closed := make(chan error)
	go func() { closed <- a.Close() }()
	<-a.stop
	close(release)
	require.NoError(t, <-closed)
	select {
	case err := <-read:
		assert.ErrorIs(t, err, io.ErrClosedPipe)
	case <-time.After(10 * time.Second):
		t.Fatal("Read has not returned")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
