//go:build linux

package recipe

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// command is a shell script with a small, known environment and everything it
// prints in the log.
func (k *kitchen) command(ctx context.Context, script string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-ec", script, "sh"}, args...)...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"SOURCE_DATE_EPOCH=" + epoch, "PYTHONHASHSEED=0",
		"TMPDIR=" + os.TempDir(),
	}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if value := os.Getenv(name); value != "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		} else if name == "http_proxy" && k.host.proxy != "" {
			cmd.Env = append(cmd.Env, name+"="+k.host.proxy)
		}
	}
	cmd.Stdout, cmd.Stderr = k.log, k.log
	// Ctrl-C reaches this program only, which then ends what it started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// isolated runs a script as the first process of a PID namespace, with mounts
// of its own. When it ends or is killed, the kernel kills whatever it started
// and drops whatever it mounted before Wait returns: nothing is left, and the
// tree can be removed.
func (k *kitchen) isolated(ctx context.Context, script string, args ...string) error {
	cmd := k.command(ctx, script, args...)
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	// Go makes every mount private after unsharing, so none gets out.
	cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	cmd.Env = append(cmd.Env, "TMPDIR="+k.dir)
	return k.run(cmd)
}

func (k *kitchen) run(cmd *exec.Cmd) error {
	// Pdeathsig is sent when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", firstLine(cmd.Args[2]), err)
	}
	return nil
}
