//go:build !(linux && (amd64 || arm64 || riscv64))

package ioctl

import (
	"context"
	"os"
	"syscall"
)

// platform makes Open fail, so that nothing below is called.
const platform = false

func (h *Handle) ioctl(request, *command) syscall.Errno { return syscall.ENOSYS }

func blockSignals(bool) func() { return func() {} }

func interruptWhenDone(context.Context) func() { return func() {} }

func bigBuffer(int) ([]byte, func(), error) { return nil, nil, syscall.ENOSYS }

func memoryFile(string) (*os.File, error) { return nil, syscall.ENOSYS }
