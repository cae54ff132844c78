//go:build !linux

package diff

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
)

// tree is not available on this system: reading a snapshot needs a mount outside of
// every mount namespace, which only Linux has.
type tree struct {
	root *os.File
	name string
}

func (t *tree) fail(what, rel string, err error) error {
	return fmt.Errorf("%s %q in %s: %w", what, rel, t.name, err)
}

func (t *tree) open(string) (*os.File, error) { return nil, errdefs.ErrNotImplemented }
func (t *tree) stat(string) (node, error)     { return node{}, errdefs.ErrNotImplemented }
func (t *tree) readDir(context.Context, string) ([]direntry, error) {
	return nil, errdefs.ErrNotImplemented
}
func (t *tree) readLink(string) (string, error)          { return "", errdefs.ErrNotImplemented }
func (t *tree) attributeNames(string) ([]string, error)  { return nil, errdefs.ErrNotImplemented }
func (t *tree) attribute(string, string) (string, error) { return "", errdefs.ErrNotImplemented }
func (t *tree) objects() (uint64, error)                 { return 0, errdefs.ErrNotImplemented }

func nextData(_ *os.File, from, _ int64) int64 { return from }

func jailed(*os.File, func() error) error { return errdefs.ErrNotImplemented }

func syncFS(*os.File) error { return errdefs.ErrNotImplemented }
