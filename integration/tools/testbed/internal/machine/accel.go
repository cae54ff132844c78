package machine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/wire"
)

const (
	// AccelVariable decides over the accelerator: kvm, tcg, or auto.
	AccelVariable = "TESTBED_ACCEL"

	kvmDevice = "/dev/kvm"
	// proofTimeout is several times what a boot takes with a KVM that works.
	proofTimeout = 20 * time.Second
)

// ChooseAccel sets the accelerator: KVM where a boot with it succeeded once,
// emulation elsewhere. That there is a device proves nothing. The result is
// remembered in dir for this kernel, processor and QEMU.
func ChooseAccel(ctx context.Context, config *Config, dir string) error {
	switch choice := os.Getenv(AccelVariable); choice {
	case "kvm", "tcg":
		config.Accel = choice
		return nil
	case "", "auto":
	default:
		return fmt.Errorf("%s=%s: want kvm, tcg or auto", AccelVariable, choice)
	}
	config.Accel = "tcg"
	usable := unix.Access(kvmDevice, unix.R_OK|unix.W_OK) == nil
	if !usable { // none, or not for this user
		return nil
	}
	key, err := accelKey()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "accel-"+key)
	if known, err := os.ReadFile(file); err == nil {
		config.Accel = strings.TrimSpace(string(known))
		return nil
	}
	config.Say("trying whether KVM works (once, at most %s)", proofTimeout)
	if config.Accel, err = proveKVM(ctx, config); err != nil {
		return err
	}
	config.Say("the guests will run with %s; remove %s to have it tried again", config.Accel, file)
	return writeAtomically(file, config.Accel+"\n")
}

// proveKVM boots the guest itself, as only that shows that it can.
func proveKVM(ctx context.Context, config *Config) (string, error) {
	proof := &Config{
		Scratch: config.Scratch,
		Kernel:  config.Kernel, Agent: config.Agent, Modules: config.Modules, Image: config.Image,
		Accel: "kvm", Memory: config.Memory, Cores: config.Cores,
		Order:  wire.Order{Args: []string{"true"}},
		Stdout: io.Discard, Stderr: io.Discard, Say: func(string, ...any) {},
		BootTimeout: proofTimeout, Timeout: proofTimeout,
	}
	result, err := Run(ctx, proof)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err == nil && result.Code == 0 {
		return "kvm", nil
	}
	return "tcg", nil
}

// accelKey identifies what the result depends on.
func accelKey() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", err
	}
	qemu, err := exec.LookPath(QEMU)
	if err != nil {
		return "", err
	}
	program, err := os.Stat(qemu)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	fmt.Fprintln(hash, unix.ByteSliceToString(name.Release[:]), processor(), program.Size(), program.ModTime().UnixNano())
	return fmt.Sprintf("%x", hash.Sum(nil)[:6]), nil
}

func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(info)) {
		if strings.HasPrefix(line, "model name") {
			return strings.TrimSpace(line)
		}
	}
	return "unknown"
}

// writeAtomically lets other runs see all of the file or nothing.
func writeAtomically(path, content string) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".accel-*")
	if err != nil {
		return err
	}
	_, err = file.WriteString(content)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return os.Rename(file.Name(), path)
}
