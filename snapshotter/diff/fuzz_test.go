package diff

import (
	"bytes"
	"context"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// FuzzPaths asserts for any paths, one on each line, that the set contains all of
// their prefixes and nothing else.
func FuzzPaths(f *testing.F) {
	for _, seed := range []string{
		"", "/", "/a", "/a/b\n/a/c/d\n/e", "/a\n/a/b", "a/b", "//a//b", "/a/../b", "/..", "/./a", "/a/\n/a",
		"/a\x00b/c", "/\xff/\xfe", "/ / ", "/a/b\n/a", strings.Repeat("/a", 1000),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		found, want := &paths{}, make(map[string]bool)
		lines := strings.Split(text, "\n")
		for _, line := range lines {
			found.add(line)
			for _, prefix := range prefixes(line) {
				want[prefix] = true
			}
		}
		require.Equal(t, want, allOf(found, "", make(map[string]bool)))
		require.False(t, found.all)
		for _, line := range lines {
			at, prefix := found, ""
			for name := range strings.SplitSeq(line, "/") {
				at, prefix = at.child(name), prefix+"/"+name
				require.Equal(t, want[prefix], at != nil, "%q", prefix)
			}
		}
	})
}

// prefixes returns the prefixes of a path up to its first empty component.
func prefixes(full string) (list []string) {
	prefix := ""
	for _, name := range strings.Split(strings.Trim(full, "/"), "/") {
		if name == "" {
			break
		}
		prefix += "/" + name
		list = append(list, prefix)
	}
	return list
}

// allOf adds every path of p to a map.
func allOf(p *paths, at string, to map[string]bool) map[string]bool {
	if p == nil {
		return to
	}
	names := p.names()
	if !slices.IsSorted(names) || len(names) != len(p.below) {
		panic("names must return all names in order")
	}
	for _, name := range names {
		to[at+"/"+name] = true
		allOf(p.child(name), at+"/"+name, to)
	}
	return to
}

// FuzzChanged asserts for any ranges that an object counts as changed if and only if
// it is in a range that is in use, whatever the order and overlaps of the ranges are.
func FuzzChanged(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 10, 5, 0, 0, 12, 20, 0, 0, 3, 1, 0})
	f.Add([]byte{0, 0, 255, 1, 0, 7, 0, 0, 1, 7, 0, 0, 2, 7, 0, 0, 3, 255, 255, 0})
	f.Add([]byte{0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1, 9, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		ranges := rangesIn(b[:min(len(b), 400)])
		given := slices.Clone(ranges)
		h := hint{ranges: inUse(ranges), known: true}
		require.Equal(t, given, ranges, "the argument is not modified")
		for i, r := range h.ranges {
			require.LessOrEqual(t, r.First, r.Last)
			require.True(t, i == 0 || h.ranges[i-1].Last < r.First, "%v", h.ranges)
		}
		for object := range around(ranges) {
			want := slices.ContainsFunc(ranges, func(r zfs.ObjectRange) bool {
				return !r.Free && r.First <= object && object <= r.Last
			})
			require.Equal(t, want, h.changed(object), "%d in %v", object, ranges)
			require.True(t, hintAll().changed(object))
		}
	})
}

// rangesIn turns bytes into ranges that are close to each other in a few places. Some
// are reversed.
func rangesIn(b []byte) (list []zfs.ObjectRange) {
	for r := range slices.Chunk(b, 4) {
		if len(r) < 4 {
			break
		}
		near := []uint64{0, 1 << 16, 1 << 47, math.MaxUint64 - 600}[r[0]%4]
		one := zfs.ObjectRange{First: near + uint64(r[1]), Last: near + uint64(r[1]) + uint64(r[2]), Free: r[3]%4 == 1}
		if r[3]%8 == 7 {
			one.First, one.Last = one.Last, one.First
		}
		list = append(list, one)
	}
	return list
}

// around returns the ends of ranges and the objects next to them.
func around(ranges []zfs.ObjectRange) map[uint64]bool {
	objects := map[uint64]bool{0: true, math.MaxUint64: true}
	for _, r := range ranges {
		for _, end := range []uint64{r.First, r.Last} {
			objects[end-1], objects[end], objects[end+1] = true, true, true
		}
	}
	return objects
}

// FuzzMediaTypes asserts for any media type that it is refused for writing, or that
// what is written is read again. Reading supports more media types than writing.
func FuzzMediaTypes(f *testing.F) {
	for _, media := range slices.Concat(slices.Sorted(maps.Keys(compressors)), []string{
		"", "+", "tar", "tar+gzip", "tar+zstd", "tarx", "tar+", "text/plain", ocispec.MediaTypeImageLayer + "+gzip+encrypted",
		ocispec.MediaTypeImageLayer + strings.Repeat("+gzip", 60), ocispec.MediaTypeImageLayer + "+zstd+gzip",
		"application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.diff.tar+x",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "APPLICATION/vnd.oci.image.layer.v1.tar", "a\x00b",
	}) {
		f.Add(media, []byte("what is in a layer"))
	}
	f.Fuzz(func(t *testing.T, media string, payload []byte) {
		if _, err := Compression(media); err != nil {
			require.ErrorIs(t, err, errdefs.ErrInvalidArgument)
		}
		// Bytes that are not a layer of that type are an error or read unchanged.
		if s, err := uncompress(context.Background(), ocispec.Descriptor{MediaType: media}, bytes.NewReader(payload), diff.ApplyConfig{}); err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(s.from, 1<<20))
			s.Close()
		}
		config := diff.Config{MediaType: media}
		c, err := compressor(&config)
		if err != nil {
			require.ErrorIs(t, err, errdefs.ErrNotImplemented)
			return
		}
		var layer bytes.Buffer
		w, err := c(&layer)
		require.NoError(t, err)
		_, err = w.Write(payload)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		s, err := uncompress(context.Background(), ocispec.Descriptor{MediaType: config.MediaType}, &layer, diff.ApplyConfig{})
		require.NoError(t, err, config.MediaType)
		defer s.Close()
		got, err := io.ReadAll(s.from)
		require.NoError(t, err, config.MediaType)
		require.True(t, bytes.Equal(payload, got), config.MediaType)
		require.Equal(t, int64(len(payload)), s.size)
	})
}
