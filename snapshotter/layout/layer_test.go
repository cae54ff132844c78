package layout

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Only a name that containerd itself generates for a layer is the name of a layer.
func TestLayerNamesAreExact(t *testing.T) {
	t.Parallel()
	id := chain("a")
	for _, good := range []struct{ name, namespace string }{
		{"default/3/" + id, "default"},
		{"k8s.io/18446744073709551615/" + id, "k8s.io"},
		{"a-b_c.d/1/" + id, "a-b_c.d"},
		{strings.Repeat("n", 76) + "/1/" + id, strings.Repeat("n", 76)},
	} {
		namespace, got, ok := ParseLayerName(good.name)
		assert.True(t, ok, "%q", good.name)
		assert.Equal(t, good.namespace, namespace)
		assert.Equal(t, id, got)
	}
	for _, bad := range []string{
		"", id, "default/" + id, "/3/" + id, "default//" + id, "default/3/", "default/3",
		"default/0/" + id, "default/03/" + id, "default/-3/" + id, "default/+3/" + id, "default/3x/" + id, "default/0x3/" + id,
		"default/18446744073709551616/" + id,
		"default/3/" + id + "\n", "default/3/" + id + "/", "default/3/" + id + "a", "default/3/" + id[:70], "default/3/ " + id,
		"default/3/" + chain("A"), "default/3/" + chain("g"), "default/3/sha512:" + id[7:], "default/3/" + id[7:],
		"default/3/extract-1-x " + id, "default/3/4/" + id, "\ndefault/3/" + id, " default/3/" + id,
		"../3/" + id, ".default/3/" + id, "default./3/" + id, "a..b/3/" + id, "käse/3/" + id, "a b/3/" + id, "a@b/3/" + id,
		strings.Repeat("n", 77) + "/1/" + id, "default/3/\x00" + id, "default/３/" + id,
	} {
		namespace, got, ok := ParseLayerName(bad)
		assert.False(t, ok, "%q", bad)
		assert.Empty(t, namespace+got, "%q", bad)
	}
}

func TestOnlyOwnLayersAreOwned(t *testing.T) {
	t.Parallel()
	b := base(t, "tank/zfstpl")
	shared, err := b.Layer(chain("a"))
	require.NoError(t, err)
	own, err := b.OwnLayer("default", chain("a"))
	require.NoError(t, err)
	assert.True(t, own.IsOwned())
	for _, other := range []Template{shared, b.Empty(), b.Opaque(NewID()), {}} {
		assert.False(t, other.IsOwned(), "%q", other)
	}
}
