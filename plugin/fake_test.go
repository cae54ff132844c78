package plugin

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// fakeZFS is the zfs command of these tests. It finds the pool's name in its arguments
// and prints the file of that pool's directory that is named like the subcommand. A file
// "<subcommand>.err" makes it fail with that text. It is not a pool: an instance opens its own
// zfs.Client, which cannot be replaced by a zfsfake.Pool.
const fakeZFS = `#!/bin/sh
for word; do
	case "$word" in pool[0-9]*) pool=${word%%/*} ;; esac
done
dir=$ZFSTPL_TEST_FAKE_ZFS/$pool
echo "$*" >>"$dir/calls"
what=$1
case " $* " in
*" -t filesystem "*) what=filesystems ;;
*" -t snapshot "*) what=snapshots ;;
*" name,property,source,value "*) what=below ;;
*" property,value "*) what=pool ;;
*" property,source,value "*) what=base ;;
esac
if [ "$1" = program ]; then
	case $(cat) in *user_properties*) what=properties ;; esac
fi
if [ -e "$dir/$what.err" ]; then cat "$dir/$what.err" >&2; exit 1; fi
if [ -e "$dir/$what" ]; then cat "$dir/$what"; fi
`

func TestMain(m *testing.M) { os.Exit(withFakeZFS(m)) }

// rootAt opens a directory as the root of a base.
func rootAt(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	return root
}

func withFakeZFS(m *testing.M) int {
	dir, err := os.MkdirTemp("", "zfstpl-fake-zfs-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"zfs", "zpool"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(fakeZFS), 0o700); err != nil {
			panic(err)
		}
	}
	// For a command line without a pool's name.
	if err := os.WriteFile(filepath.Join(dir, "version"), []byte("zfs-2.4.4-1\nzfs-kmod-2.4.4-1\n"), 0o600); err != nil {
		panic(err)
	}
	mountOf = func(*os.Root) (*mountinfo.Info, error) { return nil, nil } // the base is a directory here
	os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	os.Setenv("ZFSTPL_TEST_FAKE_ZFS", dir)
	return m.Run()
}

var pools atomic.Int64

// fakePool creates a pool for which zfs prints the outputs, by subcommand. POOL in an
// output is the pool's name.
func fakePool(t *testing.T, outputs map[string]string) (base layout.Base, dir string) {
	t.Helper()
	pool := fmt.Sprintf("pool%d", pools.Add(1))
	dir = filepath.Join(os.Getenv("ZFSTPL_TEST_FAKE_ZFS"), pool)
	require.NoError(t, os.Mkdir(dir, 0o700))
	if _, given := outputs["program"]; !given {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "program"), []byte(`{"return":{"clone":true,"errno":0}}`), 0o600))
	}
	for name, text := range outputs {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "POOL", pool)), 0o600))
	}
	base, err := layout.ParseBase(pool + "/z")
	require.NoError(t, err)
	return base, dir
}

func opened(t *testing.T, base layout.Base) *zfs.Client {
	t.Helper()
	c, err := zfs.Open(t.Context(), base.Pool(), "zfstpl:", zfs.Command)
	require.NoError(t, err)
	return c
}
