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

// What is read ahead is what there is to read, and at its end the same error:
// a layer that was cut off must not look like one that ends.
func TestReadAhead(t *testing.T) {
	t.Parallel()
	cut := errors.New("cut off")
	for _, size := range []int{0, 1, 63, 64, 65, 1000} {
		content := make([]byte, size)
		_, err := rand.NewChaCha8([32]byte{}).Read(content)
		require.NoError(t, err)
		for what, end := range map[string]error{"ends": nil, "cut off": cut, "cut off early": io.ErrUnexpectedEOF} {
			for how, r := range map[string]io.Reader{
				"at once":         bytes.NewReader(content),
				"byte by byte":    iotest.OneByteReader(bytes.NewReader(content)),
				"with its end":    iotest.DataErrReader(bytes.NewReader(content)),
				"sometimes a bit": iotest.HalfReader(bytes.NewReader(content)),
			} {
				if end != nil {
					r = io.MultiReader(r, iotest.ErrReader(end))
				}
				a := readAhead(r, 64, 2)
				got, err := io.ReadAll(iotest.HalfReader(a))
				assert.True(t, errors.Is(err, end), "%d bytes, %s, %s: %v", size, what, how, err)
				assert.True(t, bytes.Equal(content, got), "%d bytes, %s, %s", size, what, how)
				_, again := a.Read(make([]byte, 1))
				assert.Error(t, again, "after the end")
				require.NoError(t, a.Close())
			}
		}
	}
}

// Whoever has read enough may go, and nothing is read behind his back.
func TestReadAheadEndsEarly(t *testing.T) {
	t.Parallel()
	var read counter
	a := readAhead(io.TeeReader(strings.NewReader(strings.Repeat("x", 10_000)), &read), 100, 3)
	_, err := io.ReadFull(a, make([]byte, 150))
	require.NoError(t, err)
	require.NoError(t, a.Close())
	assert.LessOrEqual(t, int(read), 500, "two blocks, three more, and no others")
}

// Whoever waits for a block that does not come any more is not left waiting.
func TestReadAheadEndsBesideAReader(t *testing.T) {
	t.Parallel()
	entered, let := make(chan struct{}), make(chan struct{})
	var calls int
	a := readAhead(readerFunc(func(p []byte) (int, error) {
		if calls++; calls == 1 {
			close(entered)
		}
		<-let
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
	close(let)
	require.NoError(t, <-closed)
	select {
	case err := <-read:
		assert.ErrorIs(t, err, io.ErrClosedPipe)
	case <-time.After(10 * time.Second):
		t.Fatal("it waits still")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
