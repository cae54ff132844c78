package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/guest"
)

// writeInitramfs writes a cpio archive ("newc") with the agent and the modules
// that it needs to find the root.
func writeInitramfs(path, agent string, modules []string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	buffered := bufio.NewWriterSize(file, 1<<20)
	archive := &cpio{w: buffered}
	for _, dir := range []string{"dev", "proc", "sys", "root", guest.ModuleDir[1:]} {
		archive.add(dir, 0o040755, 0, nil, 0)
	}
	// The kernel opens it as the agent's standard streams.
	archive.add("dev/console", 0o020600, 5<<8|1, nil, 0)
	archive.addFile(guest.Init[1:], agent)
	for _, module := range modules {
		archive.addFile(filepath.Join(guest.ModuleDir[1:], filepath.Base(module)), module)
	}
	archive.add("TRAILER!!!", 0, 0, nil, 0)
	return errors.Join(archive.err, buffered.Flush())
}

// cpio writes an archive; after an error it writes no more.
type cpio struct {
	w     io.Writer
	inode int
	err   error
}

func (c *cpio) addFile(name, source string) {
	if c.err != nil {
		return
	}
	file, err := os.Open(source)
	if err != nil {
		c.err = err
		return
	}
	defer file.Close() // only read
	info, err := file.Stat()
	if err != nil {
		c.err = err
		return
	}
	c.add(name, 0o100755, 0, file, info.Size())
}

// add writes one member. A device is given as major<<8|minor.
func (c *cpio) add(name string, mode, device int, content io.Reader, size int64) {
	if c.err != nil {
		return
	}
	c.inode++
	_, c.err = fmt.Fprintf(c.w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.inode, mode, 0, 0, 1, 0, size, 0, 0, device>>8, device&0xff, len(name)+1, 0, name)
	c.pad(int64(110 + len(name) + 1))
	if c.err != nil || content == nil {
		return
	}
	_, c.err = io.CopyN(c.w, content, size)
	c.pad(size)
}

// pad fills up to the next multiple of four.
func (c *cpio) pad(written int64) {
	if c.err == nil {
		_, c.err = c.w.Write(make([]byte, (4-written%4)%4))
	}
}
