package holders

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// process adds a process to a directory that looks like /proc.
func process(t *testing.T, proc string, pid int, comm, namespace, mountinfo string) {
	t.Helper()
	dir := filepath.Join(proc, strconv.Itoa(pid))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "ns"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "comm"), []byte(comm+"\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mountinfo"), []byte(mountinfo), 0o600))
	require.NoError(t, os.Symlink(namespace, filepath.Join(dir, "ns", "mnt")))
}

// line returns a line of a mountinfo file.
func line(mountpoint, fstype, source string) string {
	return fmt.Sprintf("36 35 0:45 / %s rw,noatime shared:1 master:2 - %s %s rw,xattr,posixacl\n", mountpoint, fstype, source)
}

func TestFindReturnsMountsOfAllNamespaces(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	const web, layer, other = "tank/z/runtime/web-1", "tank/z/storage/sha256:aa", "tank/z/runtime/web-10"
	host := line("/", "ext4", "/dev/sda1") + line(`/run/my\040rootfs`, "zfs", web) + line("/home", "zfs", "tank/home")
	process(t, proc, 900, "containerd-shim", "mnt:[1]", host)
	process(t, proc, 17, "init", "mnt:[1]", host)
	process(t, proc, 1000, "sleep", "mnt:[2]", line("/", "zfs", web)+line("/look", "zfs", layer+"@extracted"))
	process(t, proc, 1001, "sleep", "mnt:[2]", line("/", "zfs", web))
	process(t, proc, 1002, "sh", "mnt:[3]", line("/x", "overlay", web)+line("/y", "zfs", other))
	require.NoError(t, os.MkdirAll(filepath.Join(proc, "2000"), 0o700), "a process that has ended")
	require.NoError(t, os.MkdirAll(filepath.Join(proc, "sys"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(proc, "uptime"), nil, 0o600))

	found := Find(proc, web, layer, "tank/nothing")
	assert.Equal(t, map[string][]Mount{
		web: {
			{web, "/run/my rootfs", 17, "init", "mnt:[1]"},
			{web, "/", 1000, "sleep", "mnt:[2]"},
		},
		layer: {{layer + "@extracted", "/look", 1000, "sleep", "mnt:[2]"}},
	}, found)
	assert.Equal(t, "mounted at /run/my rootfs by init (pid 17, mnt:[1])", found[web][0].String())
	assert.Empty(t, Find(proc), "no datasets are given")
	assert.Empty(t, Find(filepath.Join(proc, "none"), web), "there is no /proc")
}

// If the first process of a namespace has ended, the next one is read.
func TestFindSkipsProcessesThatEnd(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	process(t, proc, 1, "gone", "mnt:[1]", "")
	require.NoError(t, os.Remove(filepath.Join(proc, "1", "mountinfo")))
	process(t, proc, 2, "sh", "mnt:[1]", line("/x", "zfs", "tank/a"))
	require.NoError(t, os.Remove(filepath.Join(proc, "2", "comm")))
	found := Find(proc, "tank/a")["tank/a"]
	require.Len(t, found, 1)
	assert.Equal(t, 2, found[0].PID)
	assert.Contains(t, found[0].String(), "a process that has ended")
}

func TestFindIsBounded(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	process(t, proc, 1, "sh", "mnt:[1]", strings.Repeat(line("/x", "zfs", "tank/a"), 10_000))
	assert.Len(t, Find(proc, "tank/a")["tank/a"], maxMounts)
}

// Names and mountpoints with control characters are printed as one line of text.
func TestFindReplacesControlCharacters(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	process(t, proc, 1, "a\x1b[2J\nb", "mnt:[1]", line(`/a\012b\033[2J\177`, "zfs", "tank/a"))
	found := Find(proc, "tank/a")["tank/a"]
	require.Len(t, found, 1)
	assert.Equal(t, "mounted at /a?b?[2J? by a?[2J?b (pid 1, mnt:[1])", found[0].String())
}

// Find reads the real /proc.
func TestFindReadsTheRealProc(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(filepath.Join(Proc, "self", "mountinfo")); err != nil {
		t.Skip("there is no /proc")
	}
	assert.Empty(t, Find(Proc, "no-pool/of/this/name"))
}

func TestUnescapeDecodesOctalEscapes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "/a": "/a", `/a\040b`: "/a b", `\134`: `\`, `\`: `\`, `\04`: `\04`, `\400`: `\400`, `\048`: `\048`, `\\040`: `\ `, `x\0`: `x\0`,
	} {
		assert.Equal(t, want, unescape(in), "%q", in)
	}
}

func FuzzParseMounts(f *testing.F) {
	for _, seed := range []string{
		"", "\n", " - ", "36 35 0:45 / /x rw - zfs tank/a rw\n", "36 35 0:45 / /x rw - zfs\n", "- - - - - - zfs",
		"36 35 0:45 / /x rw - zfs tank/a", "36 35 0:45 / " + `\` + " rw - zfs tank/a", strings.Repeat("x ", 1000),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, m := range parseMounts(text, map[string]bool{"tank/a": true}) {
			dataset, _, _ := strings.Cut(m.Source, "@")
			require.Equal(t, "tank/a", dataset)
			require.NotContains(t, m.Mountpoint, "\n")
		}
	})
}
