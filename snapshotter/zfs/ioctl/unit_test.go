package ioctl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

const (
	errnoWrongParent = syscall.Errno(1033)
	errnoBadProperty = syscall.Errno(1044)
)

// replied returns a command as the kernel leaves it.
func replied(t *testing.T, name string, list nvlist.List) *command {
	t.Helper()
	c := newCommand(name)
	c.wantOut = true
	if err := c.fill(); err != nil {
		t.Fatal(err)
	}
	out, err := nvlist.Append(nil, list)
	if err != nil {
		t.Fatal(err)
	}
	copy(c.out, out)
	c.put(atDstSize, uint64(len(out)))
	c.raw[atFilled] = 1
	return c
}

func TestFillWritesEveryField(t *testing.T) {
	c := newCommand("tank/a")
	defer c.free()
	c.value, c.cookie, c.obj, c.simple, c.wantOut = "tank/b", 7, 8, true, true
	c.in = append(c.in, 1, 2, 3)
	for i := range c.raw {
		c.raw[i] = 0xff // the result of an earlier call
	}
	if err := c.fill(); err != nil {
		t.Fatal(err)
	}
	if c.text(atName, nameSize) != "tank/a" || c.text(atValue, valueSize) != "tank/b" {
		t.Error("names are not at their offsets")
	}
	if c.get(atCookie) != 7 || c.get(atObj) != 8 || c.raw[atSimple] != 1 {
		t.Error("numbers are not at their offsets")
	}
	if c.get(atSrcSize) != 3 || c.get(atDstSize) != outSize || c.get(atSrc) == 0 || c.get(atDst) == 0 {
		t.Error("lists are not at their offsets")
	}
	if c.raw[atFilled] != 0 || c.raw[commandSize-1] != 0 || c.get(atStat) != 0 {
		t.Error("data of an earlier call is left")
	}
}

func TestFillRefusesStringsThatDoNotFit(t *testing.T) {
	for _, p := range []params{
		{name: "tank/a\x00b"}, {value: "x\x00"}, {name: strings.Repeat("n", nameSize)}, {value: strings.Repeat("v", valueSize)},
	} {
		c := newCommand("")
		c.params = p
		if err := c.fill(); err == nil {
			t.Errorf("%.20q was not refused", p.name+p.value)
		}
		c.free()
	}
}

// A freed command leaves nothing in the next call.
func TestNewCommandIsEmpty(t *testing.T) {
	c := newCommand("a")
	c.value, c.cookie, c.simple, c.wantOut = "v", 1, true, true
	c.in = append(c.in, 1)
	c.free()
	c = newCommand("b")
	if c.params != (params{name: "b"}) || len(c.in) != 0 {
		t.Errorf("%+v, %d bytes", c.params, len(c.in))
	}
}

func TestTooSmallEnlargesTheBuffer(t *testing.T) {
	c := replied(t, "tank", nil)
	if c.tooSmall() {
		t.Error("a buffer of sufficient size counts as too small")
	}
	c.put(atDstSize, 3*outSize)
	if _, ok := c.reply(); ok {
		t.Error("a list that did not fit is returned")
	}
	if !c.tooSmall() || len(c.out) < 3*outSize {
		t.Errorf("the buffer has %d bytes", len(c.out))
	}
	c.put(atDstSize, 1<<40)
	if c.tooSmall() {
		t.Error("a terabyte was allocated")
	}
}

func property1(value any, source string) nvlist.List {
	return nvlist.List{{Name: "value", Value: value}, {Name: "source", Value: source}}
}

func TestDatasetIsParsed(t *testing.T) {
	c := replied(t, "tank/base/storage/x", nvlist.List{
		{Name: "used", Value: property1(uint64(100), "")},
		{Name: "referenced", Value: property1(uint64(200), "")},
		{Name: "available", Value: property1(uint64(300), "")},
		{Name: "creation", Value: property1(uint64(1700000000), "")},
		{Name: "mountpoint", Value: property1("/mnt", "tank/base")},
		{Name: "org.zfstpl:local", Value: property1("l", "tank/base/storage/x")},
		{Name: "org.zfstpl:received", Value: property1("r", "$recvd")},
		{Name: "org.zfstpl:inherited", Value: property1("i", "tank/base")},
		{Name: "org.zfstpl:number", Value: property1(uint64(1), "tank/base/storage/x")},
		{Name: "userquota@a:b", Value: property1("q", "tank/base/storage/x")},
		{Name: "compression", Value: property1(uint64(15), "tank")},
	})
	defer c.free()
	c.put(atStats+statsGUID, 11)
	c.put(atStats+statsCreateTXG, 12)
	binary.LittleEndian.PutUint32(c.raw[atStats+statsType:], objsetFilesystem)
	copy(c.raw[atStats+statsOrigin:], "tank/base/storage/empty@extracted")
	got, err := c.dataset()
	if err != nil {
		t.Fatal(err)
	}
	want := Dataset{
		Stats: Stats{Name: "tank/base/storage/x", Origin: "tank/base/storage/empty@extracted", GUID: 11, CreateTXG: 12},
		Used:  100, Referenced: 200, Available: 300,
		Created:    time.Unix(1700000000, 0).UTC(),
		Mountpoint: "/mnt/storage/x",
		User:       map[string]string{"org.zfstpl:local": "l", "org.zfstpl:received": "r"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDamagedListIsAnError(t *testing.T) {
	c := replied(t, "tank", nvlist.List{{Name: "used", Value: property1(uint64(1), "")}})
	defer c.free()
	c.out[20] ^= 0xff
	var format *nvlist.FormatError
	if _, err := c.dataset(); !errors.As(err, &format) {
		t.Errorf("got %v", err)
	}
}

func TestMountpointIsInherited(t *testing.T) {
	for _, m := range []struct{ name, set, source, want string }{
		{"tank", "", "", "/tank"},
		{"tank/a/b", "", "", "/tank/a/b"},
		{"tank/a/b", "legacy", "tank/a", "legacy"},
		{"tank/a/b", "none", "tank", "none"},
		{"tank/a/b", "/m", "tank/a/b", "/m"},
		{"tank/a/b", "/m", "$recvd", "/m"},
		{"tank/a/b", "/m", "tank/a", "/m/b"},
		{"tank/a/b", "/m", "tank", "/m/a/b"},
		{"tank/a/b", "/", "tank", "/a/b"},
		{"tank", "/", "tank", "/"},
	} {
		if got := mountpointOf(m.name, m.set, m.source); got != m.want {
			t.Errorf("%+v: got %q", m, got)
		}
	}
}

func TestPropertiesConvertsWords(t *testing.T) {
	got, err := Properties(map[string]string{
		"org.zfstpl:r": "x", "mountpoint": "legacy", "compression": "zstd-3", "quota": "1048576", "canmount": "noauto", "refquota": "none",
	})
	want := nvlist.List{
		{Name: "canmount", Value: uint64(2)},
		{Name: "compression", Value: uint64(16 | 3<<7)},
		{Name: "mountpoint", Value: "legacy"},
		{Name: "org.zfstpl:r", Value: "x"},
		{Name: "quota", Value: uint64(1048576)},
		{Name: "refquota", Value: uint64(0)},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for name, value := range map[string]string{
		"compression": "zstd-20", "quota": "1G", "canmount": "yes", "frobnicate": "on", "xattr": "on", "recordsize": "1000", "": "",
	} {
		if _, err := Properties(map[string]string{name: value}); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s=%s: got %v", name, value, err)
		}
	}
}

func TestOnlyComparedReleasesAreSupported(t *testing.T) {
	for text, known := range map[string]bool{
		"2.4.4-1~bpo13+1": true, "2.3.9-1": true, "2.1.0-1": true, "2.2.11": true,
		"2.0.7-1": false, "2.5.0-1": false, "2.4.99-1_g0123456": false, "3.2.1": false, "0.8.6-1": false,
		"": false, "x": false, "2.4": false,
	} {
		err := checkRelease(text)
		if (err == nil) != known || !known && (!errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), text)) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	if text := "2.4.4"; !atLeast(text, 2, 3) || !atLeast(text, 2, 4) || atLeast(text, 2, 5) || atLeast(text, 3, 0) {
		t.Error("atLeast is wrong")
	}
	if _, err := openAt(t.Context(), "/nonexistent", devicePath); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no module: got %v", err)
	}
}

// atLeast reports whether a release is major.minor or later.
func atLeast(release string, major, minor int) bool {
	var has [2]int
	_, _ = fmt.Sscanf(release, "%d.%d", &has[0], &has[1])
	return slices.Compare(has[:], []int{major, minor}) >= 0
}

func TestResultReturnsValuesAndErrors(t *testing.T) {
	c := replied(t, "tank", nvlist.List{{Name: "return", Value: int64(5)}})
	if v, err := c.result(nil); err != nil || v != int64(5) {
		t.Errorf("got %v, %v", v, err)
	}
	c = replied(t, "tank", nil)
	if v, err := c.result(nil); err != nil || v != nil {
		t.Errorf("got %v, %v", v, err)
	}
	c = replied(t, "tank", nvlist.List{{Name: "error", Value: "line 1: no"}})
	_, err := c.result(ErrnoProgram)
	if !errors.Is(err, ErrnoProgram) || err.Error() != "zfs program tank: channel program failed: line 1: no" {
		t.Errorf("got %v", err)
	}
	c = replied(t, "tank", nvlist.List{{Name: "error", Value: "Could not open pool: tank errno: 28"}})
	if _, err := c.result(ErrnoProgram); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	c = replied(t, "tank", nvlist.List{{Name: "N_MORE_ERRORS", Value: int32(1)}})
	if _, err := c.result(nil); !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), "did not fit") {
		t.Errorf("got %v", err)
	}
}

func TestFailEachReturnsAllErrnos(t *testing.T) {
	c := replied(t, "tank", nvlist.List{
		{Name: "tank/a@s", Value: int32(syscall.EEXIST)}, {Name: "tank/b@s", Value: int32(errnoBadProperty)}, {Name: "N_MORE_ERRORS", Value: int32(3)},
	})
	err := failEach("snapshot", "tank/a@s", syscall.EEXIST, c)
	want := "zfs snapshot tank/a@s: file exists; tank/a@s: file exists; tank/b@s: bad property value; and 3 more"
	var e *Error
	if !errors.As(err, &e) || e.More != 3 || e.Each["tank/a@s"] != syscall.EEXIST || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if failEach("snapshot", "", nil, c) != nil || fail("x", "", nil) != nil {
		t.Error("success is returned as an error")
	}
}

func TestObjectRangesAreParsed(t *testing.T) {
	var b []byte
	for _, n := range []uint64{4, 0, 0, 2, 1, 9, 1, 5, 5, 4, 32, 1 << 55, 4, 0, 1<<64 - 1} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	got, err := objectRanges(b)
	want := []ObjectRange{{0, 0, true}, {1, 9, false}, {32, 1 << 55, true}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := objectRanges(b[:25]); err == nil {
		t.Error("a truncated record was read")
	}
	if _, err := objectRanges(append(b[:24:24], make([]byte, 24)...)); err == nil {
		t.Error("a record of an unknown kind was read")
	}
}

func TestOpenRefusesAnEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
