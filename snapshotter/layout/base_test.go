package layout

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseBaseAcceptsOnlyLegalNames(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("a", maxDatasetName-longestBelow)
	deepest := strings.TrimSuffix(strings.Repeat("a/", 47), "/")
	for _, name := range []string{
		"tank", "tank/zfstpl", "tank/a-b_c.d:e", "T/x", "tank/1", "tank/...", longest, deepest,
	} {
		t.Run("good "+name[:min(len(name), 20)], func(t *testing.T) {
			t.Parallel()
			b, err := ParseBase(name)
			require.NoError(t, err)
			assert.Equal(t, name, b.String())
		})
	}
	for what, name := range map[string]string{
		"empty":             "",
		"slash first":       "/tank",
		"slash last":        "tank/",
		"empty component":   "tank//x",
		"dot":               "tank/.",
		"dots":              "tank/../x",
		"only dots":         "..",
		"space":             "tank/my data",
		"tab":               "tank\tx",
		"newline":           "tank/x\n",
		"NUL":               "tank\x00",
		"snapshot":          "tank@x",
		"bookmark":          "tank#x",
		"received clone":    "tank/%recv",
		"hidden":            "tank/$MOS",
		"not ASCII":         "tank/käse",
		"not UTF-8":         "tank/\xff",
		"quote":             `tank/"x"`,
		"pool with a digit": "1tank",
		"pool with a dash":  "-o",
		"pool with a dot":   ".tank",
		"too long":          longest + "a",
		"too deep":          deepest + "/a",
	} {
		t.Run("bad "+what, func(t *testing.T) {
			t.Parallel()
			b, err := ParseBase(name)
			require.Error(t, err, "returned %q", b)
			assert.Zero(t, b, "no base is returned with an error")
			assert.NotContains(t, err.Error(), "\n", "one line")
		})
	}
}

func TestBaseNamesItsChildren(t *testing.T) {
	t.Parallel()
	b := base(t, "tank/zfstpl")
	assert.Equal(t, "tank", b.Pool())
	assert.Equal(t, "tank", base(t, "tank").Pool())
	assert.Equal(t, "tank/zfstpl/storage", b.Storage())
	assert.Equal(t, "tank/zfstpl/runtime", b.Runtime())
}

// Every name below the longest accepted base is legal.
func TestLongestBaseHoldsEveryName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		strings.Repeat("a", maxDatasetName-longestBelow),
		strings.TrimSuffix(strings.Repeat("a/", 47), "/"),
	} {
		b := base(t, name)
		layer, err := b.Layer(chain("f"))
		require.NoError(t, err)
		own, err := b.OwnLayer("default", chain("f"))
		require.NoError(t, err)
		for _, dataset := range []string{
			layer.Dataset(), own.Dataset(), b.Empty().Dataset(), b.Opaque(NewID()).Dataset(),
			b.Clone(strings.Repeat("x", 4096), NewID()),
		} {
			requireLegal(t, b, dataset)
		}
	}
}
