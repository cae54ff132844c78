// Package writer keeps a pool busy: it writes and synchronises files until it is stopped.
package writer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

const (
	// FileSize is the size of each file. While a file is written and not synchronised yet,
	// every transaction group has data of it to write, also one that a caller waits for.
	FileSize = 16 << 20
	// chunkSize is the size of each write.
	chunkSize = 1 << 20
	// Files is how many files exist at most. Each new one replaces the oldest, so that the
	// writer runs for any time in a limited space.
	Files = 16
	// warm is how many files are written before the pool counts as busy.
	warm = 2
)

// Written is what a writer did.
type Written struct {
	Files int
	Took  time.Duration
}

// String is what Parse reads.
func (w Written) String() string {
	return fmt.Sprintf("%d files in %s", w.Files, w.Took.Round(time.Millisecond))
}

// Parse reads what String wrote.
func Parse(text string) (Written, error) {
	var w Written
	var took string
	if _, err := fmt.Sscanf(text, "%d files in %s", &w.Files, &took); err != nil {
		return w, fmt.Errorf("%q: %w", text, err)
	}
	var err error
	w.Took, err = time.ParseDuration(took)
	return w, err
}

// Rate is the rate in MiB a second.
func (w Written) Rate() float64 {
	if w.Took == 0 {
		return 0
	}
	return float64(w.Files) * FileSize / (1 << 20) / w.Took.Seconds()
}

// Run writes one file after the other until the context ends. It calls ready after the
// first few, which Written does not count.
func Run(ctx context.Context, dir string, ready func() error) (Written, error) {
	// The content does not compress, and the writer has no work to make it.
	chunk := make([]byte, chunkSize)
	if _, err := rand.NewChaCha8([32]byte{}).Read(chunk); err != nil {
		return Written{}, err
	}
	var began time.Time
	for i := 0; ; i++ {
		if i == warm {
			began = time.Now()
			if err := ready(); err != nil {
				return Written{}, err
			}
		}
		if ctx.Err() != nil {
			if i <= warm {
				return Written{}, nil
			}
			return Written{Files: i - warm, Took: time.Since(began)}, nil
		}
		if err := write(filepath.Join(dir, fmt.Sprintf("file%03d", i%Files)), chunk); err != nil {
			return Written{}, err
		}
	}
}

// write replaces a file and returns after its content is on disk.
func write(path string, chunk []byte) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for range FileSize / chunkSize {
		if _, err := file.Write(chunk); err != nil {
			return err
		}
	}
	return file.Sync()
}
