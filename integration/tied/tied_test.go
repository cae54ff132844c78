package tied_test

import (
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/tied"
)

// The thread that asks for a program may end: the program goes on.
func TestAProgramOutlivesTheThreadThatAskedForIt(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("cat") // until its input ends
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // so that the thread ends with the goroutine
		started <- tied.Start(cmd)
	}()
	require.NoError(t, <-started)
	// Threads that are asked for end too: with them the first one has had its time.
	for range 20 {
		ended := make(chan struct{})
		go func() { runtime.LockOSThread(); close(ended) }()
		<-ended
	}
	require.NoError(t, in.Close())
	require.NoError(t, cmd.Wait(), "it was not killed")
	require.Equal(t, syscall.SIGKILL, cmd.SysProcAttr.Pdeathsig)
}

func TestFailuresToStart(t *testing.T) {
	t.Parallel()
	require.Error(t, tied.Run(exec.Command("/nonexistent")))
	require.Error(t, tied.Run(exec.Command("false")))
	require.NoError(t, tied.Run(exec.Command("true")))
}
