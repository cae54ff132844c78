package testpool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// oddSize is enough for a few small images.
const oddSize = 512 << 20

// CreateOdd makes a pool that is not like most: args are options of 'zpool create'.
func CreateOdd(args ...string) (*Pool, error) {
	dir, err := os.MkdirTemp("", "zfstpl-odd-")
	if err != nil {
		return nil, err
	}
	p := &Pool{Name: "zfstpl-odd-" + layout.NewID().String(), Dir: dir}
	if err := p.createOdd(args); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

func (p *Pool) createOdd(args []string) error {
	vdev := filepath.Join(p.Dir, "vdev")
	if err := errors.Join(os.WriteFile(vdev, nil, 0o600), os.Truncate(vdev, oddSize)); err != nil {
		return err
	}
	words := append([]string{"create", "-o", "cachefile=none", "-O", "mountpoint=none"}, args...)
	if out, err := exec.Command("zpool", append(words, p.Name, vdev)...).CombinedOutput(); err != nil {
		return fmt.Errorf("pool %s: %w: %s", p.Name, err, out)
	}
	pool, err := lookUp(p.Name)
	p.pool = pool
	return err
}

// MadeBase is the base of that name, which 'zfstpl init' made, mounted at root. When t ends
// the invariants are asserted and it is unmounted.
func (p *Pool) MadeBase(t testing.TB, name, root string) *Base {
	t.Helper()
	base, err := layout.ParseBase(name)
	require.NoError(t, err)
	client, err := zfs.Open(context.Background(), name, layout.PropertyPrefix, ClientChoice())
	require.NoError(t, err)
	b := &Base{Base: base, Root: root, Client: client, Choice: ClientChoice(), pool: p}
	t.Cleanup(func() { b.close(t) })
	return b
}
