package layout

import (
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The chain IDs are those that OCI's own package computes.
func TestChainIDFollowsOCI(t *testing.T) {
	t.Parallel()
	parent := ""
	var diffIDs []digest.Digest
	for _, content := range []string{"a", "b", "", "a"} {
		diffID := digest.FromString(content)
		diffIDs = append(diffIDs, diffID)
		parent = ChainID(parent, diffID.String())
		assert.Equal(t, identity.ChainID(diffIDs).String(), parent, "%d layers", len(diffIDs))
		assert.True(t, IsChainID(parent))
	}
}

func TestTemplateHasTheChainIDOfItsName(t *testing.T) {
	t.Parallel()
	b := base(t, "tank/zfstpl")
	shared, err := b.Layer(chain("a"))
	require.NoError(t, err)
	own, err := b.OwnLayer("default", chain("b"))
	require.NoError(t, err)
	for _, c := range []struct {
		template Template
		chain    string
		ok       bool
	}{
		{b.Empty(), "", true},
		{shared, chain("a"), true},
		{own, chain("b"), true},
		{b.Opaque(NewID()), "", false},
		{Template{}, "", false},
	} {
		got, ok := c.template.ChainID()
		assert.Equal(t, c.ok, ok, "%q", c.template)
		if ok {
			assert.Equal(t, c.chain, got)
		}
	}
}
