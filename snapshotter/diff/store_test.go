package diff

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errStore = errors.New("the store is full")

// narrowStore accepts so many bytes and no more.
type narrowStore struct {
	content.Writer
	left int
}

func (n *narrowStore) Write(b []byte) (int, error) {
	if n.left -= len(b); n.left < 0 {
		return 0, errStore
	}
	return len(b), nil
}

func storedIn(in content.Writer) *stored {
	return &stored{compressed: digest.Canonical.Digester(), raw: digest.Canonical.Digester(), in: in, failed: func() error { return nil }}
}

// compressing returns the number of goroutines that compress.
func compressing() int { return goroutinesIn("klauspost") }

// goroutinesIn returns the number of goroutines that run one of some functions.
func goroutinesIn(functions ...string) int {
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	n := 0
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if slices.ContainsFunc(functions, func(f string) bool { return strings.Contains(stack, f) }) {
			n++
		}
	}
	return n
}

// An error of the store, or of the layer, is returned. The layer is not read to its
// end, and no compressing goroutine is left.
func TestStoreErrorEndsTheLayer(t *testing.T) {
	before := compressing() // not in parallel: other tests compress too
	noise := rand.NewChaCha8([32]byte{})
	errLayer := errors.New("the layer failed")
	for media, c := range compressors {
		for range 20 {
			written := 0
			err := storedIn(&narrowStore{left: 2 << 20}).write(c, func(w io.Writer) error {
				for ; written < 64; written++ {
					if _, err := io.CopyN(w, noise, 1<<20); err != nil {
						return err
					}
				}
				return nil
			})
			require.ErrorIs(t, err, errStore, media)
			assert.Less(t, written, 64, media)
		}
		for _, size := range []int64{0, 1000, 2 << 20} {
			err := storedIn(&narrowStore{left: 4 << 20}).write(c, func(w io.Writer) error {
				_, err := io.CopyN(w, noise, size)
				return errors.Join(err, errLayer)
			})
			require.ErrorIs(t, err, errLayer, media)
		}
		err := storedIn(&narrowStore{}).write(c, func(w io.Writer) error {
			_, err := io.WriteString(w, "less than is sent at once")
			return err
		})
		require.ErrorIs(t, err, errStore, media)
	}
	assert.Eventually(t, func() bool { return compressing() <= before }, 10*time.Second, 10*time.Millisecond)
}

// The digests of the uncompressed and of the compressed layer are known for every
// media type.
func TestStoredLayerHasBothDigests(t *testing.T) {
	t.Parallel()
	for media, c := range compressors {
		var sent bytes.Buffer
		l := storedIn(keeping{to: &sent})
		require.NoError(t, l.write(c, func(w io.Writer) error {
			_, err := io.WriteString(w, "content of a layer")
			return err
		}))
		assert.Equal(t, digest.FromString("content of a layer"), l.raw.Digest(), media)
		assert.Equal(t, digest.FromBytes(sent.Bytes()), l.compressed.Digest(), media)
		assert.Equal(t, int64(sent.Len()), l.size, media)
	}
}

// keeping is a store that keeps the data in a buffer.
type keeping struct {
	content.Writer
	to *bytes.Buffer
}

func (k keeping) Write(b []byte) (int, error) { return k.to.Write(b) }
