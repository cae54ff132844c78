package zfs

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A busy mount is retried in the other mode, except for a caller that needs to write.
func TestBusyMountIsRetriedInTheOtherMode(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ ways, want []way }{
		"writable": {[]way{forWriting}, []way{forWriting, forWriting, forWriting, forWriting}},
		"either":   {[]way{forWriting, forReading}, []way{forWriting, forReading, forWriting, forReading}},
		"snapshot": {[]way{forReading}, []way{forReading, forReading, forReading, forReading}},
	} {
		var tried []way
		root, err := retryBusy(t.Context(), "tank/a", func(_ string, as way) (*os.File, error) {
			if tried = append(tried, as); len(tried) < len(c.want) {
				return nil, &Error{Kind: ErrBusy}
			}
			return os.Open(t.TempDir())
		}, c.ways)
		require.NoError(t, err, what)
		root.Close()
		assert.Equal(t, c.want, tried, what)
	}
}

// Any other error, and the end of the context, are returned at once.
func TestOtherMountErrorsAreNotRetried(t *testing.T) {
	t.Parallel()
	tried := 0
	_, err := retryBusy(t.Context(), "tank/a", func(string, way) (*os.File, error) {
		tried++
		return nil, &Error{Kind: ErrNotFound}
	}, []way{forWriting})
	require.ErrorIs(t, err, ErrNotFound)
	assert.Equal(t, 1, tried)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = retryBusy(ctx, "tank/a", func(string, way) (*os.File, error) { return nil, &Error{Kind: ErrBusy} }, []way{forWriting})
	require.ErrorIs(t, err, context.Canceled)
}
