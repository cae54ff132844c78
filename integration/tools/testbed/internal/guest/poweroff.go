package guest

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// releaseDisks ends all processes, unmounts everything and exports the pools, so
// that a kept disk can be used by the next guest without force. It returns
// what did not work.
func (a *agent) releaseDisks() []string {
	a.endProcesses()
	unmountAll()
	var notes []string
	if err := a.reaper.run("zpool", "export", "-a"); err != nil {
		notes = append(notes, fmt.Sprintf("the pools were not exported: %v", err))
	}
	unix.Sync()
	return notes
}

// endProcesses asks all processes to end, and then kills them.
func (a *agent) endProcesses() {
	_ = unix.Kill(-1, unix.SIGTERM)
	deadline := time.Now().Add(grace)
	for processes() > 0 && time.Now().Before(deadline) {
		// Most are not children that could be waited for one by one.
		time.Sleep(20 * time.Millisecond)
	}
	_ = unix.Kill(-1, unix.SIGKILL)
}

// processes counts the processes but this one and the kernel's threads.
func processes() int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	count := 0
	for _, entry := range entries {
		if entry.Name() == "1" || entry.Name()[0] < '0' || entry.Name()[0] > '9' {
			continue
		}
		// A kernel thread has no command line; neither has a zombie.
		if line, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline"); err == nil && len(line) > 0 {
			count++
		}
	}
	return count
}

// unmountAll unmounts what the command mounted, the last first. What is left
// makes the export fail, which is reported.
func unmountAll() {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer file.Close() // only read
	var targets []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			targets = append(targets, unescape.Replace(fields[4]))
		}
	}
	slices.Reverse(targets)
	for _, target := range targets {
		if !ofSystem(target) {
			_ = unix.Unmount(target, 0)
		}
	}
}

// unescape undoes what mountinfo does to blanks.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func ofSystem(target string) bool {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if target == dir || strings.HasPrefix(target, dir+"/") {
			return true
		}
	}
	return slices.Contains([]string{"/", "/run", "/tmp"}, target)
}

// powerOff ends the guest at once. It does not return.
func powerOff() {
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}
