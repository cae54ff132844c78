//go:build linux

package rig

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/writer"
)

// Proxy is one of the minimal proxy snapshotters in a process of its own.
type Proxy struct {
	*Service
	Address string // its socket
}

// StartProxy starts a minimal proxy snapshotter, which this program has. Its mounts bind dir.
// It runs from a copy of the program: the kernel's page cache, and an emulator that translates
// code, would let it share with the client what a daemon has for itself.
func (r *Rig) StartProxy(ctx context.Context, name, dir string, flags ...string) (*Proxy, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	own := r.Path(name + ".program")
	if err := copyProgram(program, own); err != nil {
		return nil, err
	}
	address := r.Path(name + ".proxy.sock")
	s, err := r.start(ctx, name+".proxy", append([]string{own, "proxy", "--address", address, "--dir", dir}, flags...)...)
	if err != nil {
		return nil, err
	}
	r.onClose(s.Stop)
	return &Proxy{s, address}, nil
}

// Writer is a process that keeps the pool busy.
type Writer struct{ *Service }

// StartWriter starts a writer of files in a directory, and returns when it has written the
// first ones.
func (r *Rig) StartWriter(ctx context.Context, dir string) (*Writer, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s, err := r.start(ctx, "writer", program, "write", "--dir", dir)
	return &Writer{s}, err
}

// Finish stops the writer and returns what it wrote since it was started.
func (w *Writer) Finish() (writer.Written, error) {
	if err := w.Stop(); err != nil {
		return writer.Written{}, errors.Join(err, errors.New(w.lastLog()))
	}
	lines := strings.Split(strings.TrimSpace(w.lastLog()), "\n")
	return writer.Parse(lines[len(lines)-1])
}

func copyProgram(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o700)
}
