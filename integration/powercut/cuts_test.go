//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/powercut/ledger"
	"github.com/zfstpl/zfstpl/integration/tied"
)

var (
	zfsFlag  = flag.String("zfs", "2.4", "the OpenZFS `RELEASE` in the machine")
	cutsFlag = flag.Int("cuts", 3, "how often to cut the power of each pool")
	runsFlag = flag.Int("runs", 1, "how many pools to test, one after the other. Each has the seed of the one before plus 1")
	mostFlag = flag.Int("requests", 60, "the most requests a load makes until the power is cut")
	seedFlag = flag.Uint64("seed", 0, "repeat what was printed with this `SEED`; 0 chooses one")
	binFlag  = flag.String("bin", "", "`DIR` of the programs under test and of testbed; 'make test' sets it")
	outFlag  = flag.String("out", "", "`DIR` for the ledger and the disk of a run that failed")
)

// The pool is small, so that it fills up if a cut leaves something behind.
const diskSize = "1G"

// stopTime is how long testbed may take to end after Ctrl-C.
const stopTime = 15 * time.Second

// statusCut is what testbed exits with when it has cut the power.
const statusCut = 137

// Each boot but the first finds what a power cut left, compares it with the
// ledger and continues from there. Each but the last ends with a power cut during
// the load. The pool stays the same. A long test is resumed with the seed after
// the last one that it has finished.
func TestPowerCuts(t *testing.T) {
	require.NotEmpty(t, *binFlag, "-bin names the directory of the programs under test; 'make test' sets it")
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	// Ctrl-C ends the machine and removes its disk.
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for range *runsFlag {
		if !t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { cutPower(ctx, t, seed) }) {
			return
		}
		seed++
	}
}

// cutPower tests one pool.
func cutPower(ctx context.Context, t *testing.T, seed uint64) {
	d := &drive{ctx: ctx, seed: seed, dir: t.TempDir()}
	require.NoError(t, os.WriteFile(d.ledger(), nil, 0o600))
	for cycle := range *cutsFlag + 1 {
		if !t.Run(boot(cycle), func(t *testing.T) { d.boot(t, cycle) }) {
			d.keep(t)
			t.Fatalf("it happens again, perhaps, with -zfs %s -cuts %d -requests %d -seed %d", *zfsFlag, *cutsFlag, *mostFlag, seed)
		}
	}
}

func boot(cycle int) string {
	switch cycle {
	case 0:
		return "a load, cut off"
	case *cutsFlag:
		return fmt.Sprintf("recovery %d, and everything removed", cycle)
	}
	return fmt.Sprintf("recovery %d and a load, cut off", cycle)
}

// drive is the host's side of a run: the disk and the ledger stay, the machines
// come and go.
type drive struct {
	ctx  context.Context // ends with the test, or earlier
	seed uint64
	dir  string
}

func (d *drive) ledger() string { return filepath.Join(d.dir, "ledger") }
func (d *drive) disk() string   { return filepath.Join(d.dir, "disk") }

// boot runs one machine to its end.
func (d *drive) boot(t *testing.T, cycle int) {
	began := time.Now()
	file, err := os.OpenFile(d.ledger(), os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	notes := ledger.NewRecorder(file)
	var complaints bytes.Buffer
	cmd := exec.CommandContext(d.ctx, filepath.Join(*binFlag, "testbed"), d.arguments(cycle)...)
	cmd.Stdout, cmd.Stderr = notes, &complaints
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(os.Interrupt) }, stopTime
	// The machine goes when the test is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	err = tied.Run(cmd)
	require.NoError(t, errors.Join(notes.Err, file.Close()))
	t.Logf("%s: %s; %d requests, %d returned; %s in all", notes.Plan,
		cmp.Or(notes.Verified, "cut before everything was looked at"), notes.Asked, notes.Returned,
		time.Since(began).Round(time.Second/10))

	if last := cycle == *cutsFlag; last {
		require.NoError(t, err, "%s", complaints.String())
		return
	}
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "the power was not cut: %s", complaints.String())
	if exit.ExitCode() != statusCut {
		t.Fatalf("the machine ended before its power was cut:\n%s", complaints.String())
	}
}

func (d *drive) arguments(cycle int) []string {
	args := []string{"run", "--zfs", *zfsFlag, "--memory", "2G", "--cores", "1", "--timeout", "10m",
		"--disk", diskSize, "--keep", d.disk(), "--kill-on", `"note":"` + ledger.Cut + `"`,
		"--put", d.ledger() + ":/put/ledger"}
	for _, program := range []string{"containerd-zfstpl-grpc", "zfstpl", "powercut"} {
		args = append(args, "--put", filepath.Join(*binFlag, program)+":/put/bin/")
	}
	return append(args, "--", "/put/bin/powercut", "-seed", fmt.Sprint(d.seed),
		"-cycle", fmt.Sprint(cycle), "-cuts", fmt.Sprint(*cutsFlag), "-requests", fmt.Sprint(*mostFlag), "-ledger", "/put/ledger")
}

// keep copies what a run that failed leaves to where a person may look at it.
func (d *drive) keep(t *testing.T) {
	if *outFlag == "" {
		return
	}
	to := filepath.Join(*outFlag, fmt.Sprintf("powercut-%s-%d", *zfsFlag, d.seed))
	require.NoError(t, os.MkdirAll(to, 0o755))
	out, err := exec.Command("cp", "--sparse=always", d.ledger(), d.disk(), to).CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("the ledger and the disk are in %s", to)
}
