package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/harness"
)

// The tests of this file repeat experiments of docs/experiments.md: facts about ZFS that the
// design relies on. A release of ZFS that fails one of them allows a simpler design, or needs
// another one.

// experiment returns a file system for an experiment. It is destroyed when t ends.
func experiment(t *testing.T) string {
	t.Helper()
	name := pool.Name + "/" + strings.ReplaceAll(t.Name(), "/", "-")
	zfsCommand(t, "create", "-o", "mountpoint=none", name)
	t.Cleanup(func() { zfsCommand(t, "destroy", "-r", name) })
	return name
}

// runProgram runs a channel program, with arguments that zfs sees after the script's name, and
// returns its output.
func runProgram(t *testing.T, env []string, lua string, args ...string) (string, error) {
	t.Helper()
	script := filepath.Join(t.TempDir(), "program.lua")
	require.NoError(t, os.WriteFile(script, []byte(lua), 0o600))
	cmd := exec.CommandContext(t.Context(), "zfs", append([]string{"program", "-j", pool.Name, script}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A commit that meets the snapshot of another program in its txg must retry.
func TestTwoSnapshotsInOneTxgFailWithEAGAIN(t *testing.T) {
	t.Parallel()
	fs := experiment(t)
	out, err := runProgram(t, nil, `
		local first = zfs.sync.snapshot("`+fs+`@a")
		local second = zfs.sync.snapshot("`+fs+`@b")
		return {first = first, second = second}`)
	require.NoError(t, err, out)
	assert.JSONEq(t, `{"return": {"first": 0, "second": 11}}`, out)
}

// So the arguments of our programs are literals in the script.
func TestZFSProgramTakesAWordOfTheScriptsForAnOption(t *testing.T) {
	t.Parallel()
	out, err := runProgram(t, nil, `return ...`, "word")
	require.NoError(t, err, out)
	assert.Contains(t, out, "word")
	out, err = runProgram(t, nil, `return ...`, "-x")
	require.Error(t, err, out)
	assert.Contains(t, out, "invalid option")
}

// So records are ASCII, and the program that lists omits other values.
func TestZFSProgramEndsItsOutputAtACharacterThatItsLocaleLacks(t *testing.T) {
	t.Parallel()
	const lua = `return "caf\195\169"`
	out, err := runProgram(t, []string{"LC_ALL=C.UTF-8"}, lua)
	require.NoError(t, err)
	assert.JSONEq(t, `{"return": "café"}`, out)
	out, err = runProgram(t, []string{"LC_ALL=C"}, lua)
	require.NoError(t, err, "the command reports success")
	assert.Equal(t, `{"return":"caf`, out)
}

// So usedbychildren does not show whether a listing needs a call for the children.
func TestParentOfFreshClonesHasNothingUsedByChildren(t *testing.T) {
	t.Parallel()
	fs := experiment(t)
	zfsCommand(t, "create", fs+"/origin")
	zfsCommand(t, "snapshot", fs+"/origin@s")
	zfsCommand(t, "create", fs+"/parent")
	before := zfsCommand(t, "get", "-Hpo", "value", "usedbychildren", fs+"/parent")
	zfsCommand(t, "clone", fs+"/origin@s", fs+"/parent/clone")
	zpoolSync(t, fs)
	assert.Equal(t, before, zfsCommand(t, "get", "-Hpo", "value", "usedbychildren", fs+"/parent"))
}

// A temporary snapshot belongs to an open descriptor of zfs diff. So Compare takes a snapshot
// of its own, which the next start destroys.
func TestATemporarySnapshotOfTheKernelStaysIfItIsMountedWhenItsProcessIsKilled(t *testing.T) {
	name := smallPool(t, 256*harness.MiB).Name + "/fs" // a pool of its own: the snapshot stays
	dir, at := t.TempDir(), t.TempDir()
	zfsCommand(t, "create", "-o", "mountpoint="+dir, name)
	t.Cleanup(func() { zfsCommand(t, "unmount", name) })
	zfsCommand(t, "snapshot", name+"@before")
	for i := range 4000 { // more paths than a pipe holds
		require.NoError(t, os.WriteFile(filepath.Join(dir, strings.Repeat("n", 40)+strconv.Itoa(i)), nil, 0o600))
	}
	differ := exec.CommandContext(t.Context(), "zfs", "diff", name+"@before", name)
	out, err := differ.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, differ.Start())
	_, err = out.Read(make([]byte, 1)) // the command waits in a write after the pipe is full
	require.NoError(t, err)
	snapshots := func() []string {
		return strings.Fields(zfsCommand(t, "list", "-Ho", "name", "-t", "snapshot", name))
	}
	require.Len(t, snapshots(), 2)
	temporary := snapshots()[1]
	require.NoError(t, unix.Mount(temporary, at, "zfs", unix.MS_RDONLY, ""))
	require.NoError(t, differ.Process.Kill())
	_ = differ.Wait()
	require.NoError(t, unix.Unmount(at, 0))
	assert.Contains(t, snapshots(), temporary)
	require.Error(t, exec.Command("zfs", "destroy", temporary).Run())
}
