package recordlog

import "testing"

// FuzzDecode decodes files that are not logs. Decoding must not panic, and what it accepts must
// be a prefix of the file.
func FuzzDecode(f *testing.F) {
	d := testDir(f)
	_, whole := written(f, d)
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decode(b, testBase(t))
		if err == nil && (c.size > int64(len(b)) || c.torn == (c.size == int64(len(b)))) {
			t.Fatalf("size %d of %d, torn %v", c.size, len(b), c.torn)
		}
	})
}
