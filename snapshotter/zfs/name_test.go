package zfs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	goodNames = []string{
		"tank", "tank/a", "tank/a-b_c.d:e", "tank/sha256:" + strings.Repeat("f", 64), "tank/...", strings.Repeat("a", 255),
	}
	badNames = []string{
		"", "/", "/tank", "tank/", "tank//a", "tank/.", "tank/..", "tank/../x", ".", "..", "-o", "tank/-o", "-",
		"bad name", "bad name!*", "tank/a b", "tank/a\n", "tank/a\x00", "tank/a\tb", "tank/a,b", "tank/a=b", "tank/a%b",
		"tank/%recv", "tank/$MOS", "tank/käse", "tank/\xff", `tank/"a"`, "tank/a'b", "tank/a#b", strings.Repeat("a", 256),
	}
)

func requireInvalid(t *testing.T, err error, what any) {
	t.Helper()
	require.ErrorIs(t, err, ErrInvalid, "%q", what)
	require.NotContains(t, err.Error(), "\n", "the message is one line, whatever the name")
	require.NotContains(t, err.Error(), "\x00")
}

func TestCheckFilesystemAcceptsOnlyLegalNames(t *testing.T) {
	t.Parallel()
	for _, name := range goodNames {
		assert.NoError(t, checkFilesystem("test", name), "%q", name)
	}
	for _, name := range badNames {
		requireInvalid(t, checkFilesystem("test", name), name)
	}
	requireInvalid(t, checkFilesystem("test", "tank/a@b"), "a snapshot is not a file system")
}

func TestCheckSnapshotAcceptsOnlyLegalNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tank@a", "tank/a@extracted", "tank@auto-2025-01-01_00:00", strings.Repeat("a", 253) + "@b"} {
		assert.NoError(t, checkSnapshot("test", name), "%q", name)
	}
	for _, name := range badNames {
		requireInvalid(t, checkSnapshot("test", name), name)
		requireInvalid(t, checkSnapshot("test", name+"@a"), name+"@a")
	}
	for _, name := range []string{
		"tank", "tank@", "tank@a@b", "tank@a b", "tank@a/b", "tank@%x", "tank@a\n", "@a", strings.Repeat("a", 254) + "@b",
	} {
		requireInvalid(t, checkSnapshot("test", name), name)
	}
}

func TestCheckPropertyAcceptsOnlyUserProperties(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, value string }{
		{"zfstpl:record:0123456789abcdef:12", "{}"},
		{"a:b", ""},
		{"a.b+c-d_e:f", "ä 日 \"'\\$ -n"},
		{strings.Repeat("a", 254) + ":", strings.Repeat("x", 8191)},
	} {
		assert.NoError(t, checkProperty("test", "tank", c.name, c.value), "%q=%.40q", c.name, c.value)
	}
	for what, c := range map[string]struct{ name, value string }{
		"native property":    {"mountpoint", "/"},
		"no name":            {"", "x"},
		"dash":               {"-a:b", "x"},
		"upper case":         {"A:b", "x"},
		"space in its name":  {"a b:c", "x"},
		"equals sign":        {"a:b=c", "x"},
		"newline in name":    {"a:b\n", "x"},
		"not ASCII":          {"ä:b", "x"},
		"name too long":      {strings.Repeat("a", 255) + ":", "x"},
		"value too long":     {"a:b", strings.Repeat("x", 8192)},
		"NUL in its value":   {"a:b", "x\x00y"},
		"newline in value":   {"a:b", "x\ny"},
		"tab in its value":   {"a:b", "x\ty"},
		"value is not UTF-8": {"a:b", "x\xff"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			requireInvalid(t, checkProperty("test", "tank", c.name, c.value), what)
		})
	}
}

// An op with an invalid word in any place is refused.
func TestOpsWithInvalidWordsAreRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range badNames {
		for _, op := range []Op{
			Snapshot(bad + "@x"), Clone(bad+"@x", "tank/b"), Clone("tank/a@x", bad),
			Promote(bad, "tank/b"), Promote("tank/a", bad), Set(bad, "a:b", "x"), Inherit(bad, "a:b"),
		} {
			requireInvalid(t, op.check(), op)
		}
	}
	for _, op := range []Op{
		Snapshot("tank/a"), Clone("tank/a", "tank/b"), Clone("tank/a@x", "tank/b@y"), Promote("tank/a@x", "tank/b"),
		Set("tank/a@x", "a:b", "x"), Set("tank/a", "quota", "1"), Set("tank/a", "a:b", "\n"), Inherit("tank/a", "quota"), {},
	} {
		requireInvalid(t, op.check(), op)
	}
	assert.NoError(t, checkOps([]Op{
		Snapshot("tank/a@x"), Clone("tank/a@x", "tank/b"), Promote("tank/b", "tank/a"), Set("tank/b", "a:b", "x"), Inherit("tank/a", "a:b"),
	}))
	requireInvalid(t, checkOps([]Op{Snapshot("tank/a@x"), Snapshot("bad name@x")}), "the second")
}
