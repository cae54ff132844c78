package snapshotter

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestContextCarriesMountNamespace(t *testing.T) {
	t.Parallel()
	_, other := inOtherMountNamespace(t.Context())
	assert.False(t, other)
	for _, want := range []string{"/proc/7/root", ""} {
		ctx, cancel := context.WithCancel(WithOtherMountNamespace(t.Context(), want))
		defer cancel()
		root, other := inOtherMountNamespace(ctx)
		assert.True(t, other, "derived contexts inherit it")
		assert.Equal(t, want, root)
	}
}
