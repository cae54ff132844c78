package ioctl

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"github.com/zfstpl/zfstpl/snapshotter/zfs/nvlist"
)

// Offsets in zfs_cmd_t, the same from 2.1.0 to 2.4.4 (compiled and compared).
// They hold where MAXPATHLEN is 4096, that is on Linux.
const (
	commandSize = 13744

	atName    = 0 // char[4096]
	atSrc     = 4096
	atSrcSize = 4104
	atDst     = 4112
	atDstSize = 4120
	atFilled  = 4128 // boolean_t, set if the kernel wrote a list to dst
	atValue   = 4144 // char[8192]
	atCookie  = 12616
	atObj     = 12656
	atStats   = 12704 // dmu_objset_stats_t
	atSimple  = 13668 // u8
	atStat    = 13696 // zfs_stat_t

	nameSize  = 4096
	valueSize = 8192
)

// Offsets in dmu_objset_stats_t.
const (
	statsClones     = 0
	statsCreateTXG  = 8
	statsGUID       = 16
	statsType       = 24
	statsSnapshot   = 28
	statsOrigin     = 31 // char[256]
	statsOriginSize = 256
)

// request is the number of an ioctl.
type request uint32

const (
	reqPoolStats        request = 0x5a05
	reqObjsetStats      request = 0x5a12
	reqDatasetListNext  request = 0x5a14
	reqSnapshotListNext request = 0x5a15
	reqSetProp          request = 0x5a16
	reqPoolGetProps     request = 0x5a27
	reqNextObj          request = 0x5a35
	reqDiff             request = 0x5a36
	reqObjToStats       request = 0x5a38
	reqSpaceWritten     request = 0x5a39
	reqClone            request = 0x5a42
	reqPoolSync         request = 0x5a47
	reqChannelProgram   request = 0x5a48
	reqWait             request = 0x5a53
)

// command is the state of a call: the kernel's structure and the lists beside it. The
// structure has the addresses of in and out as plain numbers, which the garbage
// collector ignores. Both are always on the heap, which does not move, and the command
// keeps them alive until the call has ended.
type command struct {
	params
	// in is the encoded input list, or empty.
	in []byte
	// out is the buffer of the output list.
	out []byte

	raw [commandSize]byte
}

// params are the parameters that fill writes to the kernel's structure.
type params struct {
	name, value string
	cookie, obj uint64
	simple      bool
	wantOut     bool // pass out to the kernel
}

const (
	outSize = 64 << 10
	// keepOut bounds the buffers of a pooled command.
	keepOut = 1 << 20
)

var commands = sync.Pool{New: func() any {
	return &command{out: make([]byte, outSize)}
}}

// newCommand returns an empty command for name. The caller must free it.
func newCommand(name string) *command {
	c := commands.Get().(*command)
	c.params, c.in = params{name: name}, c.in[:0]
	return c
}

func (c *command) free() {
	if len(c.out) <= keepOut && cap(c.in) <= keepOut {
		commands.Put(c)
	}
}

// setIn encodes the input list.
func (c *command) setIn(l nvlist.List) (err error) {
	c.in, err = nvlist.Append(c.in[:0], l)
	return err
}

// fill writes the kernel's structure, which the previous call changed. It refuses a
// string that the kernel would truncate, because the result could be the name of
// another dataset.
func (c *command) fill() error {
	clear(c.raw[:])
	for _, s := range []struct {
		text     string
		at, size int
	}{{c.name, atName, nameSize}, {c.value, atValue, valueSize}} {
		if strings.IndexByte(s.text, 0) >= 0 {
			return syscall.EINVAL
		}
		if len(s.text) >= s.size {
			return syscall.ENAMETOOLONG
		}
		copy(c.raw[s.at:], s.text)
	}
	c.put(atCookie, c.cookie)
	c.put(atObj, c.obj)
	if c.simple {
		c.raw[atSimple] = 1
	}
	if len(c.in) > 0 {
		c.put(atSrc, uint64(uintptr(unsafe.Pointer(unsafe.SliceData(c.in)))))
		c.put(atSrcSize, uint64(len(c.in)))
	}
	if c.wantOut {
		c.put(atDst, uint64(uintptr(unsafe.Pointer(unsafe.SliceData(c.out)))))
		c.put(atDstSize, uint64(len(c.out)))
	}
	return nil
}

func (c *command) put(at int, v uint64) { binary.LittleEndian.PutUint64(c.raw[at:], v) }
func (c *command) get(at int) uint64    { return binary.LittleEndian.Uint64(c.raw[at:]) }

// text returns the string at an offset of the kernel's structure.
func (c *command) text(at, size int) string {
	b := c.raw[at : at+size]
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}

// tooSmall reports whether the kernel's list did not fit, and enlarges the buffer.
func (c *command) tooSmall() bool {
	needed := c.get(atDstSize)
	if !c.wantOut || c.raw[atFilled] == 0 || needed <= uint64(len(c.out)) || needed > 1<<31 {
		return false
	}
	c.out = make([]byte, needed+needed/4)
	return true
}

// reply returns the encoded list that the kernel wrote, and whether there is one. It
// is valid until the next call of the command.
func (c *command) reply() ([]byte, bool) {
	size := c.get(atDstSize)
	if !c.wantOut || c.raw[atFilled] == 0 || size > uint64(len(c.out)) {
		return nil, false
	}
	return c.out[:size], true
}

// reader returns a reader of the list that the kernel wrote.
func (c *command) reader() *nvlist.Reader {
	reply, _ := c.reply()
	return nvlist.NewReader(reply)
}
