package holders

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A process with a file open on a file system that was unmounted lazily is found,
// although no mount table has it.
func TestFindOpenFindsUsersAfterALazyUnmount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	dir := t.TempDir()
	if err := unix.Mount("test", dir, "tmpfs", 0, ""); err != nil {
		t.Skipf("mounting is not permitted here: %v", err)
	}
	file, err := os.Create(filepath.Join(dir, "file"))
	require.NoError(t, err)
	defer file.Close()
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(file.Fd()), &st))
	require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH))

	users := FindOpen(Proc, st.Dev)
	require.Len(t, users, 1)
	assert.Equal(t, os.Getpid(), users[0].PID)
	assert.Contains(t, users[0].String(), "open ")
	assert.Contains(t, users[0].Use, "file")

	data, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	users = FindOpen(Proc, st.Dev)
	require.Len(t, users, 1, "a mapping counts as a use")
	assert.Contains(t, users[0].Use, "mapped")
	require.NoError(t, unix.Munmap(data))
	assert.Empty(t, FindOpen(Proc, st.Dev))
}
