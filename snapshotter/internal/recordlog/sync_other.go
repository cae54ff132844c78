//go:build !linux

package recordlog

import "os"

func datasync(file *os.File) error { return file.Sync() }
