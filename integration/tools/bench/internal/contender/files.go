//go:build linux

package contender

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// What the files of the template and of a changed snapshot are like: many
// small ones, of content that does not compress.
const (
	templateDirs, filesADir  = 20, 20
	templateFileSize         = 8 << 10
	changedFiles, changeSize = 10, 24 << 10
)

// WriteTemplate writes a few hundred files.
func WriteTemplate(root string) error {
	for d := range templateDirs {
		dir := filepath.Join(root, "usr", fmt.Sprintf("dir%02d", d))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := writeFiles(dir, filesADir, templateFileSize); err != nil {
			return err
		}
	}
	return nil
}

func writeChanges(root string) error {
	dir := filepath.Join(root, "var")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return writeFiles(dir, changedFiles, changeSize)
}

func writeFiles(dir string, count, size int) error {
	content := make([]byte, size)
	random := rand.NewChaCha8([32]byte{})
	for i := range count {
		if _, err := random.Read(content); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%03d", i)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
