package zfs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLinesSplitsOutputIntoFields(t *testing.T) {
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

func TestReadDatasetParsesARow(t *testing.T) {
	t.Parallel()
	row := []string{"tank/a", "tank/p@extracted", "18446744073709551615", "12", "1700000000", "1024", "2048", "legacy"}
	d, err := readDataset(row)
	require.NoError(t, err)
	assert.Equal(t, &Dataset{
		Name: "tank/a", Origin: "tank/p@extracted", Mountpoint: "legacy", GUID: 1<<64 - 1, CreateTXG: 12,
		Used: 1024, Refer: 2048, Created: time.Unix(1700000000, 0).UTC(),
	}, d)
	for column := 2; column <= 6; column++ {
		for _, value := range []string{"", "-", "none", "-1x", "1.5K", "18446744073709551616"} {
			bad := slices.Clone(row)
			bad[column] = value
			_, err := readDataset(bad)
			assert.ErrorContains(t, err, listed[column], "%q", value)
		}
	}
	for _, short := range [][]string{nil, {""}, row[:7], append(slices.Clone(row), "more")} {
		_, err := readDataset(short)
		assert.ErrorContains(t, err, "columns")
	}
	row[1] = "-"
	d, err = readDataset(row)
	require.NoError(t, err)
	assert.Empty(t, d.Origin)
}

const (
	someFilesystems = "POOL/base\t-\t1\t5\t1700000000\t0\t0\t/var/lib/zfstpl\n" +
		"POOL/base/a\tPOOL/base/b@extracted\t2\t7\t1700000000\t0\t0\tlegacy\n"
	someProperties = `{"return":{"POOL/base":{"props":{"zfstpl:version":"1"},"snapshots":{}},` +
		`"POOL/base/a":{"props":{},"snapshots":{"2":"POOL/base/a@zz","1":"POOL/base/a@extracted"}},` +
		`"POOL/base/unknown":{"props":{"zfstpl:x":"y"}}}}`
)

func TestListParsesTheOutputOfZFS(t *testing.T) {
	t.Parallel()
	f := newFake(t,
		result{Match: "^list.*filesystem", Out: someFilesystems},
		result{Match: "^program", Out: someProperties})
	list, err := f.client(true).List(t.Context(), f.pool+"/base")
	require.NoError(t, err)
	slices.SortFunc(list, func(a, b Dataset) int { return strings.Compare(a.Name, b.Name) })
	require.Len(t, list, 2)
	assert.Equal(t, f.pool+"/base", list[0].Name)
	assert.Equal(t, "/var/lib/zfstpl", list[0].Mountpoint)
	assert.Equal(t, "1", list[0].Props["zfstpl:version"])
	a := list[1]
	assert.Equal(t, f.pool+"/base/b@extracted", a.Origin)
	assert.Equal(t, uint64(7), a.CreateTXG)
	assert.Empty(t, a.Props)
	assert.True(t, a.HasSnapshot("extracted"))
	assert.False(t, a.HasSnapshot("extract"))
	for _, c := range f.calls(t) {
		assert.Equal(t, "C", c.Locale, "messages are parsed, so the locale is fixed")
		words := strings.Join(c.Args, " ")
		assert.NotContains(t, words, "-o all", "properties of snapshots cost O(clones)")
		if c.Args[0] == "program" {
			assert.Contains(t, words, "-n", "a listing changes nothing and waits for no txg")
		}
	}
}

func TestListReturnsErrorsWithKinds(t *testing.T) {
	t.Parallel()
	filesystems := result{Match: "^list", Out: someFilesystems}
	properties := result{Match: "^program", Out: someProperties}
	for what, c := range map[string]struct {
		results []result
		kind    error
	}{
		"no base":             {[]result{{Match: "^list", Status: 1, Err: "cannot open 'x': dataset does not exist\n"}}, ErrNotFound},
		"destroyed meanwhile": {[]result{filesystems, {Match: "^program", Status: 1, Err: "cannot open 'x': dataset does not exist\n"}}, ErrNotFound},
		"no module":           {[]result{{Match: "^list", Status: 1, Err: "The ZFS modules are not loaded.\n"}}, ErrUnavailable},
		"not a number":        {[]result{{Match: "^list", Out: "POOL/base\t-\tnone\t5\t1\t0\t0\tnone\n"}, properties}, nil},
		"a short row":         {[]result{{Match: "^list", Out: "POOL/base\t-\n"}, properties}, nil},
		"no output":           {[]result{filesystems, {Match: "^program", Out: ""}}, nil},
		"no message":          {[]result{{Match: "^list", Status: 3}}, nil},
		"an unknown message":  {[]result{{Match: "^list", Status: 2, Err: "usage:\n\tlist …\n"}}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, c.results...)
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

func TestWrittenParsesBytes(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "written@POOL/o@x POOL/number$", Out: "12345\n"}, result{Match: "/none$", Out: "-\n"},
		result{Match: "/gone$", Status: 1, Err: "cannot open 'x': dataset does not exist\n"})
	c := f.client(true)
	n, err := c.Written(t.Context(), f.pool+"/number", f.pool+"/o@x")
	require.NoError(t, err)
	assert.Equal(t, uint64(12345), n)
	assert.ErrorContains(t, second(c.Written(t.Context(), f.pool+"/none", f.pool+"/o@x")), "since "+f.pool+"/o@x")
	assertKind(t, ErrNotFound, second(c.Written(t.Context(), f.pool+"/gone", f.pool+"/o@x")))
	assertKind(t, ErrInvalid, second(c.Written(t.Context(), f.pool+"/gone", f.pool+"/o")))
	assertKind(t, ErrInvalid, second(c.Written(t.Context(), "-x", f.pool+"/o@x")))
}

func TestSpaceParsesBytes(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "/number$", Out: "12345\n678\n90\n0\n"}, result{Match: "/none$", Out: "none\nnone\nnone\nnone\n"},
		result{Match: "/short$", Out: "5\n"},
		result{Match: "/gone$", Status: 1, Err: "cannot open 'x': dataset does not exist\n"})
	c := f.client(true)
	s, err := c.Space(t.Context(), f.pool+"/number")
	require.NoError(t, err)
	assert.Equal(t, Space{Used: 12345, Referenced: 678, Available: 90}, s)
	for _, bad := range []string{"/none", "/short"} {
		_, err = c.Space(t.Context(), f.pool+bad)
		assert.Error(t, err)
	}
	_, err = c.Space(t.Context(), f.pool+"/gone")
	assertKind(t, ErrNotFound, err)
}

func TestStateParsesPoolProperties(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]PoolState{
		"freeing\t0\ncheckpoint\t-\nhealth\tONLINE\n":            {},
		"freeing\t4096\ncheckpoint\t77\nhealth\tSUSPENDED\n":     {Freeing: 4096, Checkpoint: true, Suspended: true},
		"freeing\t1\ncheckpoint\t0\nhealth\tDEGRADED\ngarbage\n": {Freeing: 1, Checkpoint: true},
	} {
		s, err := newFake(t, result{Match: "^get .*POOL$", Out: out}).client(true).State(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, s)
	}
	assert.Error(t, second(newFake(t, result{Match: "^get", Out: "freeing\tnone\n"}).client(true).State(t.Context())))
	assertKind(t, ErrNotFound, second(newFake(t, result{Match: "^get", Status: 1, Err: "cannot open 'x': no such pool\n"}).client(true).State(t.Context())))
}

// A freed block can be written again two transaction groups later.
func TestWaitFreedSyncsDeferredGroups(t *testing.T) {
	t.Parallel()
	f := newFake(t, result{Match: "^wait -t free POOL$"}, result{Match: "^sync POOL$"})
	require.NoError(t, f.client(true).WaitFreed(t.Context()))
	assert.Len(t, f.calls(t), 3)
	f = newFake(t, result{Match: "^wait", Status: 1, Err: "cannot open 'x': no such pool\n"})
	assertKind(t, ErrNotFound, f.client(true).WaitFreed(t.Context()))
	assert.Len(t, f.calls(t), 1)
}
