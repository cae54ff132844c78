package snapshotter

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestContextCarriesMountNamespace(t *testing.T) {
	t.Parallel()
	assert.False(t, inOtherMountNamespace(t.Context()))
	ctx, cancel := context.WithCancel(WithOtherMountNamespace(t.Context()))
	defer cancel()
	assert.True(t, inOtherMountNamespace(ctx), "derived contexts inherit it")
}
