// Package tied starts programs that end when this one does, whatever ends it.
//
// The kernel sends the signal that does it when the thread ends that started the
// program, not the process. Threads do end: a goroutine that locked one and never
// gave it back, as the differ's jail does, takes it along. So one thread is kept
// that starts all of them.
package tied

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

type start struct {
	cmd  *exec.Cmd
	done chan<- error
}

var starts = sync.OnceValue(func() chan<- start {
	orders := make(chan start)
	go func() {
		runtime.LockOSThread() // and never unlocked
		for s := range orders {
			s.done <- s.cmd.Start()
		}
	}()
	return orders
})

// Start is cmd.Start for a program that the kernel kills when this process ends:
// by SIGKILL, unless cmd names another signal.
func Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	done := make(chan error)
	starts() <- start{cmd, done}
	return <-done
}

// Run is cmd.Run for such a program.
func Run(cmd *exec.Cmd) error {
	if err := Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}
