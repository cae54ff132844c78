package layout

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTemplateNamesRoundTrip(t *testing.T) {
	t.Parallel()
	b := base(t, "tank/zfstpl")
	layer, err := b.Layer(chain("0"))
	require.NoError(t, err)
	own, err := b.OwnLayer("default", chain("0"))
	require.NoError(t, err)
	id, ok := ParseID("0123456789abcdef")
	require.True(t, ok)
	for _, c := range []struct {
		template      Template
		dataset       string
		empty, opaque bool
	}{
		{b.Empty(), "tank/zfstpl/storage/empty", true, false},
		{layer, "tank/zfstpl/storage/" + chain("0"), false, false},
		// The first digits of 'printf default | sha256sum'.
		{own, "tank/zfstpl/storage/ns-37a8eec1ce19687d-" + chain("0"), false, false},
		{b.Opaque(id), "tank/zfstpl/storage/opaque-0123456789abcdef", false, true},
	} {
		assert.Equal(t, c.dataset, c.template.Dataset())
		assert.Equal(t, c.dataset+"@extracted", c.template.Snapshot())
		assert.Equal(t, c.dataset, b.Storage()+"/"+c.template.Name())
		assert.Equal(t, c.empty, c.template.IsEmpty())
		assert.Equal(t, c.opaque, c.template.IsOpaque())
		assert.False(t, c.template.IsZero())

		parsed, ok := b.ParseTemplate(c.template.Dataset())
		assert.True(t, ok)
		assert.Equal(t, c.template, parsed)
		parsed, ok = b.ParseExtracted(c.template.Snapshot())
		assert.True(t, ok)
		assert.Equal(t, c.template, parsed)
		_, ok = b.ParseRuntime(c.template.Dataset())
		assert.False(t, ok, "a template is not a runtime")
	}
	assert.True(t, Template{}.IsZero())
}

func TestLayerNeedsAChainID(t *testing.T) {
	t.Parallel()
	b := base(t, "tank")
	for _, id := range []string{
		"", "empty", "sha256:", chain("a")[:70], chain("a") + "a", chain("A"), chain("a") + "\n", "../" + chain("a"),
	} {
		template, err := b.Layer(id)
		assert.Error(t, err, "%q", id)
		assert.True(t, template.IsZero(), "%q", id)
		template, err = b.OwnLayer("default", id)
		assert.Error(t, err, "%q", id)
		assert.True(t, template.IsZero(), "%q", id)
		assert.False(t, IsChainID(id), "%q", id)
	}
}

// A client can choose any namespace: two namespaces never share a template, and
// nothing of the name becomes part of the dataset's name.
func TestOwnLayersOfHostileNamespacesAreDistinct(t *testing.T) {
	t.Parallel()
	b := base(t, "tank/zfstpl")
	seen := make(map[string]string)
	for _, ns := range append(hostile, "default", "k8s.io", "37a8eec1ce19687d") {
		own, err := b.OwnLayer(ns, chain("a"))
		require.NoError(t, err, "%q", ns)
		requireLegal(t, b, own.Dataset())
		assert.Len(t, own.Name(), len("ns-0123456789abcdef-")+len(chain("a")), "%q", ns)
		other, found := seen[own.Dataset()]
		assert.False(t, found, "%q and %q", ns, other)
		seen[own.Dataset()] = ns
		assert.True(t, own.OwnedBy(ns), "%q", ns)
		assert.False(t, own.OwnedBy(ns+"x"), "%q", ns)
		assert.False(t, b.Empty().OwnedBy(ns), "%q", ns)
		parsed, ok := b.ParseTemplate(own.Dataset())
		assert.True(t, ok, "%q", ns)
		assert.Equal(t, own, parsed)
	}
}

// A dataset whose name is not exactly one of ours is foreign, and is never destroyed.
func TestParseTemplateRefusesForeignNames(t *testing.T) {
	t.Parallel()
	b := base(t, "tank/zfstpl")
	for _, dataset := range []string{
		"", "tank", "tank/zfstpl", "tank/zfstpl/storage", "tank/zfstpl/storage/",
		"tank/zfstpl/storage/backup",
		"tank/zfstpl/storage/Empty",
		"tank/zfstpl/storage/empty/child",
		"tank/zfstpl/storage/empty@extracted",
		"tank/zfstpl/storage/opaque-",
		"tank/zfstpl/storage/opaque-0123456789ABCDEF",
		"tank/zfstpl/storage/opaque-0123456789abcde",
		"tank/zfstpl/storage/opaque-0123456789abcdef0",
		"tank/zfstpl/storage/opaque-0123456789abcdef/child",
		"tank/zfstpl/storage/" + chain("a")[:70],
		"tank/zfstpl/storage/" + chain("a") + "/child",
		"tank/zfstpl/storage/" + chain("a") + "@extracted",
		"tank/zfstpl/storage/ns-" + chain("a"),
		"tank/zfstpl/storage/ns-default-" + chain("a"),
		"tank/zfstpl/storage/ns-0123456789ABCDEF-" + chain("a"),
		"tank/zfstpl/storage/ns-0123456789abcde-" + chain("a"),
		"tank/zfstpl/storage/ns-0123456789abcdef0-" + chain("a"),
		"tank/zfstpl/storage/ns-0123456789abcdef-" + chain("a")[:70],
		"tank/zfstpl/storage/ns-0123456789abcdef-" + chain("a") + "/child",
		"tank/zfstpl/storage/ns-0123456789abcdef-",
		"tank/zfstpl/storage2/empty",
		"tank/zfstpl/runtime/empty",
		"tank/other/storage/empty",
		"xtank/zfstpl/storage/empty",
	} {
		template, ok := b.ParseTemplate(dataset)
		assert.False(t, ok, "%q", dataset)
		assert.True(t, template.IsZero(), "%q", dataset)
	}
	for _, snapshot := range []string{
		"", "@extracted", "tank/zfstpl/storage/empty", "tank/zfstpl/storage/empty@",
		"tank/zfstpl/storage/empty@extracted2", "tank/zfstpl/storage/empty@other",
		"tank/zfstpl/storage/backup@extracted", "tank/zfstpl/storage/empty@extracted@extracted",
		"tank/zfstpl/runtime/web-0123456789abcdef@extracted",
	} {
		_, ok := b.ParseExtracted(snapshot)
		assert.False(t, ok, "%q", snapshot)
	}
}

func TestParseRuntimeRefusesForeignNames(t *testing.T) {
	t.Parallel()
	b := base(t, "tank/zfstpl")
	for _, dataset := range []string{
		"", "tank/zfstpl/runtime", "tank/zfstpl/runtime/",
		"tank/zfstpl/runtime/web",
		"tank/zfstpl/runtime/0123456789abcdef",
		"tank/zfstpl/runtime/-0123456789abcdef",
		"tank/zfstpl/runtime/web-0123456789abcde",
		"tank/zfstpl/runtime/web-0123456789abcdef0",
		"tank/zfstpl/runtime/web-0123456789ABCDEF",
		"tank/zfstpl/runtime/web_0123456789abcdef",
		"tank/zfstpl/runtime/web-0123456789abcdef/child",
		"tank/zfstpl/runtime/web-0123456789abcdef@extracted",
		"tank/zfstpl/runtime/a/web-0123456789abcdef",
		"tank/zfstpl/storage/web-0123456789abcdef",
		"tank/other/runtime/web-0123456789abcdef",
	} {
		_, ok := b.ParseRuntime(dataset)
		assert.False(t, ok, "%q", dataset)
	}
}

// The readable part of a runtime's name consists of letters, digits and single dashes.
// Clone never returns any other name.
func TestParseRuntimeRefusesNamesThatCloneNeverReturns(t *testing.T) {
	t.Parallel()
	b := base(t, "tank/zfstpl")
	for _, name := range []string{"my_backup", "backup.old", "a:b", "50%", strings.Repeat("x", 41)} {
		_, ok := b.ParseRuntime(b.Runtime() + "/" + name + "-0123456789abcdef")
		assert.False(t, ok, "%q", name)
	}
}

func TestCloneHasAReadableName(t *testing.T) {
	t.Parallel()
	b := base(t, "tank/zfstpl")
	id, _ := ParseID("0123456789abcdef")
	for key, want := range map[string]string{
		"web":            "web",
		"default/12/web": "web",
		"default/3/extract-884922259-kMJE " + chain("b"): "extract-bbbbbbbbbbbb",
		"nginx@1.2%20/conf":        "nginx-1-2-20-conf",
		"--web--":                  "web",
		"../..":                    "snapshot",
		"-o":                       "o",
		"":                         "snapshot",
		"日本語":                      "snapshot",
		"café":                     "caf",
		"a\x00b\nc":                "a-b-c",
		strings.Repeat("x", 4096):  strings.Repeat("x", 40),
		strings.Repeat("a-", 4096): strings.TrimSuffix(strings.Repeat("a-", 20), "-"),
	} {
		assert.Equal(t, b.Runtime()+"/"+want+"-0123456789abcdef", b.Clone(key, id), "key %.40q", key)
	}
}

// hostile are keys that a client may send to influence a dataset name.
var hostile = []string{
	"", "a", "\x00", "a\x00b", "\n", "a\nb", "\t", "-o", "-", "--", "---", "@", "x@y", "#", "%", "%recv", "..", ".",
	"../..", "../../tank/other", "/", "//", "/a/", "a b", "日本語", "\u202e", "\xff\xfe", "é", ":", "_", "$MOS",
	"sha256:" + strings.Repeat("a", 64), "extract-1 sha256:" + strings.Repeat("a", 64), "default/1/../..",
	strings.Repeat("x", 4096), strings.Repeat("é", 2048), strings.Repeat("-", 4096), strings.Repeat("/", 4096),
}

func checkClone(t testing.TB, b Base, key string) {
	t.Helper()
	id := NewID()
	dataset := b.Clone(key, id)
	requireLegal(t, b, dataset)
	require.Equal(t, 1, strings.Count(strings.TrimPrefix(dataset, b.Runtime()), "/"), "%q is not directly below runtime", dataset)
	parsed, ok := b.ParseRuntime(dataset)
	require.True(t, ok, "%q", dataset)
	require.Equal(t, id, parsed)
	_, ok = b.ParseTemplate(dataset)
	require.False(t, ok, "%q", dataset)
}

func TestHostileKeysMakeLegalNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"t", "tank/zfstpl", strings.Repeat("a", maxDatasetName-longestBelow)} {
		b := base(t, name)
		for _, key := range hostile {
			checkClone(t, b, key)
			checkClone(t, b, "default/7/"+key)
		}
	}
}

func TestRandomKeysMakeLegalNames(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	b := base(t, "tank/zfstpl")
	for range 10_000 {
		var key strings.Builder
		for range r.IntN(12) {
			switch r.IntN(4) {
			case 0:
				key.WriteByte(byte(r.UintN(256)))
			case 1:
				key.WriteRune(rune(r.UintN(0x2ffff)))
			case 2:
				key.WriteString(hostile[r.IntN(len(hostile))])
			default:
				key.WriteByte("-/@%. :ab0"[r.IntN(10)])
			}
		}
		checkClone(t, b, key.String())
	}
}

func FuzzClone(f *testing.F) {
	for _, key := range hostile {
		f.Add(key)
	}
	b := base(f, "tank/zfstpl")
	f.Fuzz(func(t *testing.T, key string) { checkClone(t, b, key) })
}

func TestIDsAreUniqueAndParsed(t *testing.T) {
	t.Parallel()
	seen := make(map[ID]bool)
	for range 1000 {
		id := NewID()
		parsed, ok := ParseID(id.String())
		require.True(t, ok, "%q", id)
		require.Equal(t, id, parsed)
		require.False(t, seen[id], "drawn twice: %s", id)
		seen[id] = true
	}
	for _, s := range []string{"", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcde\n", "0x23456789abcdef"} {
		_, ok := ParseID(s)
		assert.False(t, ok, "%q", s)
	}
}
