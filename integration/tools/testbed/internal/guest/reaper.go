package guest

import (
	"fmt"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"
)

// reaper waits for every process of the guest: as pid 1, this one inherits
// all orphans. Nothing else may wait, so processes are started here and their
// end comes over a channel.
type reaper struct {
	mu      sync.Mutex // held from before a start until it is in running
	running map[int]chan unix.WaitStatus
	// children has a token when there may be a child to wait for.
	children chan struct{}
}

func newReaper() *reaper {
	r := &reaper{running: map[int]chan unix.WaitStatus{}, children: make(chan struct{}, 1)}
	go r.reap()
	return r
}

func (r *reaper) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.ECHILD {
			<-r.children
			continue
		}
		if err != nil || !status.Exited() && !status.Signaled() {
			continue
		}
		r.mu.Lock()
		if ended, ok := r.running[pid]; ok {
			delete(r.running, pid)
			ended <- status
		}
		r.mu.Unlock()
	}
}

// start starts a program and returns its pid and where its end will be reported.
func (r *reaper) start(args []string, attributes *os.ProcAttr) (int, <-chan unix.WaitStatus, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	process, err := os.StartProcess(path, args, attributes)
	if err != nil {
		return 0, nil, err
	}
	ended := make(chan unix.WaitStatus, 1)
	r.running[process.Pid] = ended
	select {
	case r.children <- struct{}{}:
	default:
	}
	return process.Pid, ended, nil
}

// run runs a program of the agent's own; what it says goes to the console.
func (r *reaper) run(args ...string) error {
	console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer console.Close() // nothing of it is awaited
	_, ended, err := r.start(args, &os.ProcAttr{Files: []*os.File{nil, console, console}, Env: os.Environ()})
	if err != nil {
		return err
	}
	if status := <-ended; status != 0 {
		return fmt.Errorf("%s: %s", args[0], describe(status))
	}
	return nil
}

// code is what a shell would make of a status.
func code(status unix.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func describe(status unix.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}
