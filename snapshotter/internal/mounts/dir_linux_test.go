package mounts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// memory mounts a tmpfs for each file system.
type memory struct {
	mounted []string
	fail    error
}

func (m *memory) MountAt(_ context.Context, filesystem, dir string) error {
	if m.fail != nil {
		return m.fail
	}
	m.mounted = append(m.mounted, filesystem)
	return unix.Mount(filesystem, dir, "tmpfs", 0, "")
}

// open opens a directory of held mounts whose mounts end with the test.
func open(t *testing.T, fs Mounter) *Dir {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	path := filepath.Join(t.TempDir(), "mnt")
	require.NoError(t, os.Mkdir(path, 0o700))
	if err := unix.Mount("held", path, "tmpfs", 0, "mode=0700"); errors.Is(err, unix.EPERM) {
		t.Skip("mounting is not permitted here")
	} else {
		require.NoError(t, err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(path, unix.MNT_DETACH)) })
	d, err := Open(path, fs, func(string) (string, bool) { return "", false })
	require.NoError(t, err)
	return d
}

func TestHoldMountsOnceAndReleaseLeavesNothing(t *testing.T) {
	fs := &memory{}
	d := open(t, fs)
	place, err := d.Hold(t.Context(), "tank/a", "1")
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(d.Path(), "1"), place)
	require.NoError(t, os.WriteFile(filepath.Join(place, "file"), nil, 0o600))

	second, err := d.Hold(t.Context(), "tank/a", "1")
	require.NoError(t, err)
	assert.Equal(t, place, second)
	assert.Equal(t, []string{"tank/a"}, fs.mounted, "the second call mounts nothing")
	assert.Equal(t, []string{"tank/a"}, d.Held())

	require.NoError(t, d.Release("tank/a"))
	assert.NoDirExists(t, place)
	assert.Empty(t, d.Held())
	require.NoError(t, d.Release("tank/a"), "a second release does nothing")
}

func TestHoldMountsAgainAfterAnUnmount(t *testing.T) {
	fs := &memory{}
	d := open(t, fs)
	place, err := d.Hold(t.Context(), "tank/a", "1")
	require.NoError(t, err)
	require.NoError(t, unix.Unmount(place, 0))

	second, err := d.Hold(t.Context(), "tank/a", "1")
	require.NoError(t, err)
	assert.Equal(t, place, second)
	assert.Len(t, fs.mounted, 2, "an empty directory is never returned")

	require.NoError(t, unix.Unmount(place, 0))
	require.NoError(t, os.Remove(place))
	require.NoError(t, d.Release("tank/a"), "a mount that does not exist counts as released")
	assert.Empty(t, d.Held())
}

func TestForeignMountIsNeitherReturnedNorUnmounted(t *testing.T) {
	fs := &memory{}
	d := open(t, fs)
	place, err := d.Hold(t.Context(), "tank/a", "1")
	require.NoError(t, err)
	require.NoError(t, unix.Mount("foreign", place, "tmpfs", 0, ""))

	_, err = d.Hold(t.Context(), "tank/a", "1")
	require.ErrorIs(t, err, ErrForeign)
	assert.ErrorContains(t, err, "umount "+place, "the error names the command")

	foreign, _, err := identify(place)
	require.NoError(t, err)
	require.ErrorIs(t, d.Release("tank/a"), ErrForeign)
	now, _, err := identify(place)
	require.NoError(t, err)
	assert.Equal(t, foreign, now, "the foreign mount is still there")

	require.NoError(t, unix.Unmount(place, 0))
	second, err := d.Hold(t.Context(), "tank/a", "1")
	require.NoError(t, err)
	assert.Equal(t, place, second)
	assert.Len(t, fs.mounted, 1, "the held mount was not replaced")
	require.NoError(t, d.Release("tank/a"))
}

func TestHoldRefusesWhatIsNotADirectory(t *testing.T) {
	d := open(t, &memory{})
	for name, make := range map[string]func(place string) error{
		"a file":                  func(place string) error { return os.WriteFile(place, nil, 0o600) },
		"a symbolic link":         func(place string) error { return os.Symlink("/", place) },
		"a link to a mount":       func(place string) error { return os.Symlink(d.Path(), place) },
		"a dangling link":         func(place string) error { return os.Symlink("/nothing", place) },
		"a link to its directory": func(place string) error { return os.Symlink(".", place) },
	} {
		t.Run(name, func(t *testing.T) {
			place := filepath.Join(d.Path(), "1")
			require.NoError(t, make(place))
			_, err := d.Hold(t.Context(), "tank/a", "1")
			require.ErrorIs(t, err, ErrForeign)
			require.NoError(t, os.Remove(place))
		})
	}
}

func TestFailedMountLeavesNoDirectory(t *testing.T) {
	fs := &memory{fail: errors.New("no such dataset")}
	d := open(t, fs)
	_, err := d.Hold(t.Context(), "tank/a", "1")
	require.ErrorIs(t, err, fs.fail)
	assert.NoDirExists(t, filepath.Join(d.Path(), "1"))
	assert.Empty(t, d.Held())
}

func TestReleaseDetachesABusyMount(t *testing.T) {
	d := open(t, &memory{})
	place, err := d.Hold(t.Context(), "tank/a", "1")
	require.NoError(t, err)
	file, err := os.Create(filepath.Join(place, "open"))
	require.NoError(t, err)
	defer file.Close()

	require.NoError(t, d.Release("tank/a"))
	assert.NoDirExists(t, place)
	_, err = file.WriteString("still written")
	assert.NoError(t, err, "the user of the mount is not interrupted")
}

func TestMountsBelowABindDoNotPropagate(t *testing.T) {
	d := open(t, &memory{})
	require.NoError(t, unix.Mount("", d.Path(), "", unix.MS_SHARED, ""))
	place, err := d.Hold(t.Context(), "tank/a", "1")
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(place, "proc"), 0o700))
	bind := filepath.Join(d.Path(), "bind")
	require.NoError(t, os.Mkdir(bind, 0o700))
	require.NoError(t, unix.Mount(place, bind, "", unix.MS_BIND|unix.MS_REC, ""))
	require.NoError(t, unix.Mount("proc", filepath.Join(bind, "proc"), "tmpfs", 0, ""))

	held, _, err := identify(place)
	require.NoError(t, err)
	inside, _, err := identify(filepath.Join(place, "proc"))
	require.NoError(t, err)
	assert.Equal(t, held, inside, "nothing is mounted below the held mount")
	require.NoError(t, unix.Unmount(bind, unix.MNT_DETACH))
	require.NoError(t, d.Release("tank/a"))
}

func TestHeldMountIsVisibleWhereItPropagates(t *testing.T) {
	d := open(t, &memory{})
	place, err := d.Hold(t.Context(), "tank/a", "1")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Release("tank/a")) })
	assertVisible := func(want bool, root string) {
		t.Helper()
		got, err := d.Visible(root, place)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	assertVisible(true, "/")
	assertVisible(true, "/proc/self/root")

	root := t.TempDir()
	assertVisible(false, root)
	there := filepath.Join(root, place)
	require.NoError(t, os.MkdirAll(there, 0o700))
	assertVisible(false, root)
	require.NoError(t, unix.Mount(place, there, "", unix.MS_BIND, ""))
	assertVisible(true, root)
	require.NoError(t, unix.Unmount(there, 0))
	require.NoError(t, os.Remove(there))
	require.NoError(t, os.Symlink(place, there))
	assertVisible(false, root) // the link leads to itself

	_, err = d.Visible(filepath.Join(root, "none"), place)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestOpenRefusesADirectoryOpenToOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mnt")
	require.NoError(t, os.Mkdir(path, 0o755))
	_, err := Open(path, &memory{}, nil)
	require.ErrorContains(t, err, "chmod 0700 "+path)

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Open(file, &memory{}, nil)
	require.Error(t, err)
}

func TestOpenRemovesOnlyEmptyDirectories(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mnt")
	require.NoError(t, os.MkdirAll(filepath.Join(path, "full", "x"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(path, "empty"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(path, "file"), nil, 0o600))
	_, err := Open(path, &memory{}, nil)
	require.NoError(t, err)
	assert.NoDirExists(t, filepath.Join(path, "empty"))
	assert.DirExists(t, filepath.Join(path, "full", "x"))
	assert.FileExists(t, filepath.Join(path, "file"))
}

func TestMountOfIsTheSameFromStatxAndFromProc(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/", "/proc", "/proc/self", "/dev"} {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		fast, err := mountOf(fd)
		require.NoError(t, err)
		slow, err := mountInProc(fd)
		require.NoError(t, err)
		assert.Equal(t, slow, fast, path)
	}
}

func TestObjectsAreThoseOfTheHeldMount(t *testing.T) {
	d := open(t, &memory{})
	_, ok := d.Objects("tank/a")
	assert.False(t, ok, "it is not mounted")
	place, err := d.Hold(t.Context(), "tank/a", "1")
	require.NoError(t, err)
	empty, ok := d.Objects("tank/a")
	require.True(t, ok)
	require.NoError(t, os.WriteFile(filepath.Join(place, "file"), nil, 0o600))
	one, ok := d.Objects("tank/a")
	require.True(t, ok)
	assert.Equal(t, empty+1, one)
	require.NoError(t, unix.Unmount(place, 0))
	_, ok = d.Objects("tank/a")
	assert.False(t, ok, "it was unmounted by hand")
}
