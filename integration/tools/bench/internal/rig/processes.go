//go:build linux

package rig

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/zfstpl/zfstpl/integration/tools/bench/internal/writer"
)

// StartProxy starts one of the minimal proxy snapshotters, which this program has, in a
// process of its own and returns its socket. Its mounts bind dir.
func (r *Rig) StartProxy(ctx context.Context, name, dir string, flags ...string) (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	address := r.Path(name + ".proxy.sock")
	s, err := r.start(ctx, name+".proxy", append([]string{program, "proxy", "--address", address, "--dir", dir}, flags...)...)
	if err != nil {
		return "", err
	}
	r.onClose(s.Stop)
	return address, nil
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
