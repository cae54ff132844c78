package diff

import (
	"context"
	"io"
	"testing"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// leaseless has no leases to give, and says so once it may.
type leaseless struct {
	leases.Manager
	may chan struct{}
}

func (l leaseless) Create(context.Context, ...leases.Opt) (leases.Lease, error) {
	<-l.may
	return leases.Lease{}, errStore
}

// A layer is begun before containerd has opened a place for it, and ends as soon as
// that turns out to be impossible, however little of it there is yet to send.
func TestALayerDoesNotWaitForTheStore(t *testing.T) {
	t.Parallel()
	for media, c := range compressors {
		may := make(chan struct{})
		s := &Service{contents: Contents{Leases: leaseless{may: may}}}
		_, err := s.store(t.Context(), diff.Config{MediaType: media}, c, func(w io.Writer) error {
			if _, err := io.WriteString(w, "begun"); !assert.NoError(t, err) {
				return err
			}
			close(may)
			for {
				if _, err := w.Write(nil); err != nil {
					return err
				}
			}
		})
		require.ErrorIs(t, err, errStore, media)
	}
	_, ok := compressors[ocispec.MediaTypeImageLayer]
	assert.True(t, ok, "a layer that is not compressed was not tried")
}
