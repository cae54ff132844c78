package zfs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLines(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][][]string{
		"":             nil,
		"a\tb\n":       {{"a", "b"}},
		"a\tb\nc\td":   {{"a", "b"}, {"c", "d"}},
		"a\n\nb\n":     {{"a"}, {""}, {"b"}},
		"\t\n":         {{"", ""}},
		"a b\t\"c\"\n": {{"a b", `"c"`}},
		"a\r\n":        {{"a\r"}},
	} {
		assert.Equal(t, want, lines([]byte(in)), "%q", in)
	}
}

func TestTake(t *testing.T) {
	t.Parallel()
	d := Dataset{Name: "tank/a", Props: make(map[string]string)}
	for _, p := range [][3]string{
		{"origin", "-", "tank/p@extracted"},
		{"mountpoint", "inherited from tank", "legacy"},
		{"guid", "-", "18446744073709551615"},
		{"createtxg", "-", "12"},
		{"used", "-", "1024"},
		{"referenced", "-", "2048"},
		{"creation", "-", "1700000000"},
		{"compression", "local", "lz4"},
		{"zfstpl:record:0123456789abcdef", "local", "1 {}"},
		{"zfstpl:sent", "received", "here"},
		{"zfstpl:version", "inherited from tank", "1"},
		{"com.sun:auto-snapshot", "-", "false"},
	} {
		require.NoError(t, d.take(p[0], p[1], p[2]), "%q", p)
	}
	assert.Equal(t, Dataset{
		Name: "tank/a", Origin: "tank/p@extracted", Mountpoint: "legacy", GUID: 1<<64 - 1, CreateTXG: 12,
		Used: 1024, Refer: 2048, Created: time.Unix(1700000000, 0).UTC(),
		Props: map[string]string{"zfstpl:record:0123456789abcdef": "1 {}", "zfstpl:sent": "here"},
	}, d)

	none := Dataset{}
	require.NoError(t, none.take("origin", "-", "-"))
	assert.Empty(t, none.Origin)
	for _, name := range []string{"guid", "createtxg", "used", "referenced", "creation"} {
		for _, value := range []string{"", "-", "none", "-1x", "1.5K", "18446744073709551616"} {
			assert.ErrorContains(t, none.take(name, "-", value), name, "%q", value)
		}
	}
}

const listing = "POOL/base\tguid\t-\t1\nPOOL/base\tcreatetxg\t-\t5\nPOOL/base\tmountpoint\tlocal\t/var/lib/zfstpl\n" +
	"POOL/base\tzfstpl:version\tlocal\t1\n" +
	"POOL/base/a\torigin\t-\tPOOL/base/b@extracted\nPOOL/base/a\tzfstpl:version\tinherited from POOL/base\t1\n" +
	"POOL/base/a\tstranger:note\tlocal\ta line\nwhich goes on\nPOOL/base/a\tstranger:tab\tlocal\ta\tb\n" +
	"POOL/base/a\tcreatetxg\t-\t7\n"

func TestListReadsWhatZFSPrints(t *testing.T) {
	t.Parallel()
	f := newFake(t,
		answer{Match: "^get", Out: listing},
		answer{Match: "^list", Out: "POOL/base/a@extracted\nPOOL/base/a@zz\nPOOL/base/unknown@x\n"})
	list, err := f.client(true).List(t.Context(), f.pool+"/base")
	require.NoError(t, err)
	slices.SortFunc(list, func(a, b Dataset) int { return strings.Compare(a.Name, b.Name) })
	require.Len(t, list, 2)
	assert.Equal(t, f.pool+"/base", list[0].Name)
	assert.Equal(t, "/var/lib/zfstpl", list[0].Mountpoint)
	assert.Equal(t, "1", list[0].Props["zfstpl:version"])
	a := list[1]
	assert.Equal(t, f.pool+"/base/b@extracted", a.Origin)
	assert.Equal(t, uint64(7), a.CreateTXG, "what follows a stranger's odd value is read")
	assert.NotContains(t, a.Props, "zfstpl:version", "inherited")
	assert.True(t, a.HasSnapshot("extracted"))
	assert.False(t, a.HasSnapshot("extract"))
	for _, c := range f.calls(t) {
		assert.Equal(t, "C", c.Locale, "messages are read, so their language is fixed")
		assert.NotContains(t, strings.Join(c.Args, " "), "-o all", "stats of snapshots cost O(clones)")
	}
}

func TestListFailures(t *testing.T) {
	t.Parallel()
	whole := answer{Match: "^get", Out: listing}
	for what, c := range map[string]struct {
		answers []answer
		kind    error
	}{
		"no base":           {[]answer{{Match: "^get", Status: 1, Err: "cannot open 'x': dataset does not exist\n"}}, ErrNotFound},
		"gone meanwhile":    {[]answer{whole, {Match: "^list", Status: 1, Err: "cannot open 'x': dataset does not exist\n"}}, ErrNotFound},
		"no module":         {[]answer{{Match: "^get", Status: 1, Err: "The ZFS modules are not loaded.\n"}}, ErrUnavailable},
		"a number is none":  {[]answer{{Match: "^get", Out: "POOL/base\tguid\t-\tnone\n"}}, nil},
		"silent failure":    {[]answer{{Match: "^get", Status: 3}}, nil},
		"an unknown answer": {[]answer{{Match: "^get", Status: 2, Err: "usage:\n\tget …\n"}}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, c.answers...)
			list, err := f.client(true).List(t.Context(), f.pool+"/base")
			require.Error(t, err)
			assert.Nil(t, list)
			assertKind(t, c.kind, err)
			var e *Error
			require.ErrorAs(t, err, &e)
			assert.Equal(t, "list", e.Op)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestUsed(t *testing.T) {
	t.Parallel()
	f := newFake(t, answer{Match: " POOL", Out: ""}, answer{Match: "/number$", Out: "12345\n"}, answer{Match: "/none$", Out: "none\n"},
		answer{Match: "/gone$", Status: 1, Err: "cannot open 'x': dataset does not exist\n"})
	c := f.client(true)
	n, err := c.Used(t.Context(), f.pool+"/number")
	require.NoError(t, err)
	assert.Equal(t, uint64(12345), n)
	_, err = c.Used(t.Context(), f.pool+"/none")
	assert.Error(t, err)
	_, err = c.Used(t.Context(), f.pool+"/gone")
	assertKind(t, ErrNotFound, err)
}
