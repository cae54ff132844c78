package harness

import (
	"io"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// ProgramLog is the output of a program, in a file without a name. What the program wrote
// before it did anything else, such as to notify that it is ready, can be read afterwards: no
// goroutine copies it. The zero value is an empty log.
type ProgramLog struct {
	once sync.Once
	file *os.File
	err  error
}

// Output returns the file for the program's standard output and error.
func (l *ProgramLog) Output(t testing.TB) *os.File {
	t.Helper()
	l.open()
	require.NoError(t, l.err)
	return l.file
}

func (l *ProgramLog) open() {
	l.once.Do(func() {
		fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
		l.file, l.err = os.NewFile(uintptr(max(fd, 0)), "log"), err
	})
}

// String returns what was written until now.
func (l *ProgramLog) String() string {
	l.open()
	if l.err != nil {
		return l.err.Error()
	}
	text, err := io.ReadAll(io.NewSectionReader(l.file, 0, 1<<40))
	if err != nil {
		return err.Error()
	}
	return string(text)
}
