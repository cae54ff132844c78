package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/tied"
)

const systemdProgram = "/usr/lib/systemd/systemd"

// systemd is a running systemd that is the first process of a PID namespace. Its mount
// namespace receives the mounts of this process's, so that it reads the mount table as
// the systemd of a host does.
type systemd struct {
	pid int
}

// startSystemd starts a systemd that is ended when t ends, or returns nil and logs why
// this host cannot have one. The systemd starts no unit but an empty target, and runs
// no generator. It has /run, /dev, its control group and its host name for itself, and
// /proc/sys is read-only for it.
func startSystemd(t testing.TB) *systemd {
	t.Helper()
	if _, err := os.Stat(systemdProgram); err != nil {
		t.Logf("systemd is not measured: %v", err)
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Logf("systemd is not measured: /sys/fs/cgroup is no cgroup2 (%v)", err)
		return nil
	}
	said, err := exec.Command(systemdProgram, "--version").Output()
	require.NoError(t, err)
	version, _, _ := strings.Cut(string(said), "\n")
	t.Logf("%s", version)

	group, err := os.MkdirTemp("/sys/fs/cgroup", "zfstpl-systemd-")
	require.NoError(t, err)
	t.Cleanup(func() { removeGroup(t, group) })
	// The socket is not below /run, where systemd has a tmpfs of its own.
	dir, err := os.MkdirTemp("", "zfstpl-sd-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	const script = `
		mount --make-rslave /
		echo 0 > "$GROUP/cgroup.procs"
		exec unshare --cgroup sh -euc '
			mount -t proc proc /proc
			mount --bind /proc/sys /proc/sys
			mount -o remount,bind,ro /proc/sys
			mount -t cgroup2 cgroup /sys/fs/cgroup
			mount -t tmpfs -o mode=0755 dev /dev
			mknod -m 666 /dev/null c 1 3
			mknod -m 666 /dev/urandom c 1 9
			mount -t tmpfs -o mode=0755 run /run
			mkdir -p /run/systemd/system /run/none
			printf "[Unit]\nDefaultDependencies=no\n" > /run/systemd/system/zfstpl.target
			exec "$0" --system --unit=zfstpl.target' "$0"`
	cmd := exec.Command("sh", "-euc", script, systemdProgram)
	ready := harness.NotifySocket(t, dir)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "GROUP=" + group, "NOTIFY_SOCKET=" + ready.Path, "container=zfstpl",
		"SYSTEMD_GENERATOR_PATH=/run/none", "SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Setsid:     true,
	}
	log := &harness.ProgramLog{}
	cmd.Stdout, cmd.Stderr = log.Output(t), log.Output(t)
	require.NoError(t, tied.Start(cmd))
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		// All processes of the PID namespace end with the first one.
		require.NoError(t, cmd.Process.Kill())
		<-exited
	})
	select {
	case <-ready.Got:
	case err := <-exited:
		exited <- err
		require.Fail(t, "systemd ended at its start", "%v\n%s", err, log)
	case <-time.After(harness.Patience):
		require.Fail(t, "systemd is not ready", "%s", log)
	}
	return &systemd{pid: cmd.Process.Pid}
}

// removeGroup removes a control group and those below it, which have no process.
func removeGroup(t testing.TB, group string) {
	t.Helper()
	entries, err := os.ReadDir(group)
	require.NoError(t, err)
	for _, entry := range entries {
		if entry.IsDir() {
			removeGroup(t, filepath.Join(group, entry.Name()))
		}
	}
	assert.NoError(t, unix.Rmdir(group))
}

// mountUnits returns how many units systemd has of mounts below dir. A unit that no file
// describes has the path as its description.
func (s *systemd) mountUnits(t testing.TB, dir string) (count int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(s.pid), "--mount", "--pid",
		"systemctl", "list-units", "--type=mount", "--state=mounted", "--plain", "--no-legend", "--full")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", &stderr)
	for unit := range strings.Lines(string(out)) {
		if words := strings.Fields(unit); len(words) == 5 && strings.HasPrefix(words[4], dir+"/") {
			count++
		}
	}
	return count
}

// settle waits until systemd has read the mount table for the last time: it puts a
// reading off for up to a second where one follows the other.
func (s *systemd) settle(t testing.TB) {
	t.Helper()
	const quiet = 3 * time.Second
	deadline := time.Now().Add(harness.Patience)
	for before := processorTime(t, s.pid); ; {
		time.Sleep(quiet)
		now := processorTime(t, s.pid)
		if now == before {
			return
		}
		require.True(t, time.Now().Before(deadline), "systemd does not become quiet")
		before = now
	}
}

// memory returns the bytes of memory that belong to systemd alone.
func (s *systemd) memory(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "RssAnon:" {
			kib, err := strconv.Atoi(words[1])
			require.NoError(t, err)
			return kib << 10
		}
	}
	require.Fail(t, "no RssAnon", "%s", text)
	return 0
}

// processorTime returns the time that a process has had of the processors, by itself and
// in the kernel.
func processorTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	// The name of the program is in brackets and may contain anything. utime and stime
	// are the 12th and 13th of the words behind it, in hundredths of a second.
	words := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	require.Greater(t, len(words), 12)
	var sum time.Duration
	for _, word := range words[11:13] {
		ticks, err := strconv.Atoi(word)
		require.NoError(t, err)
		sum += time.Duration(ticks) * 10 * time.Millisecond
	}
	return sum
}
