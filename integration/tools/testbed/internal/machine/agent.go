package machine

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/proc"
)

// ChooseAgent sets the program that is the guest's first process: this one.
// The guest has no dynamic loader, so where this one needs that, as it does
// when it was built with cgo, a static one is built from the same source, and
// remembered in dir.
func ChooseAgent(ctx context.Context, config *Config, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dynamic, err := isDynamic(self)
	if err != nil {
		return err
	}
	if !dynamic {
		config.Agent = self
		return nil
	}
	sum, err := fileHash(self)
	if err != nil {
		return err
	}
	config.Agent = filepath.Join(dir, "agent-"+sum)
	if _, err := os.Stat(config.Agent); err == nil {
		return nil
	}
	return buildAgent(ctx, config.Agent)
}

func buildAgent(ctx context.Context, path string) error {
	_, file, _, _ := runtime.Caller(0)
	source := filepath.Join(filepath.Dir(file), "..", "..")
	if _, err := os.Stat(filepath.Join(source, "main.go")); err != nil {
		return errors.New("testbed is linked dynamically, and its source is not here: build it with CGO_ENABLED=0")
	}
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	cmd := exec.Command("go", "build", "-o", temporary, ".")
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := proc.Run(ctx, cmd); err != nil {
		return fmt.Errorf("build the agent: %w", err)
	}
	return os.Rename(temporary, path)
}

func isDynamic(path string) (bool, error) {
	file, err := elf.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close() // only read
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return true, nil
		}
	}
	return false, nil
}

func fileHash(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close() // only read
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", hash.Sum(nil)[:6]), nil
}
