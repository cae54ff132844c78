package harness

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Touch creates an empty file.
func Touch(dir, name string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// MiB is a mebibyte.
const MiB = 1 << 20

// Fill writes size bytes that do not compress. It returns how many it wrote.
func Fill(path string, size int) (written int, err error) {
	file, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	noise := make([]byte, 256<<10)
	for written < size {
		if _, err := rand.Read(noise); err != nil {
			return written, err
		}
		n, err := file.Write(noise)
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, file.Sync()
}

// Mkdirs creates directories and their parents.
func Mkdirs(t testing.TB, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		require.NoError(t, os.MkdirAll(dir, 0o755))
	}
}
