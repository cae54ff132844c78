//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

const (
	filesPerDir = 100
	fileSize    = 600
	fewChanges  = 5 // files changed, and as many made
)

// writeTree writes small files, a hundred in a directory.
func writeTree(dir string, files int) error {
	content := make([]byte, fileSize)
	random := newRandom()
	for i := range files {
		in := filepath.Join(dir, fmt.Sprintf("dir%04d", i/filesPerDir))
		if i%filesPerDir == 0 {
			if err := os.MkdirAll(in, 0o755); err != nil {
				return err
			}
		}
		if _, err := random.Read(content); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(in, fmt.Sprintf("file%02d", i%filesPerDir)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// newRandom returns random bytes that are others each time: what is in
// containerd's store already would be no work.
func newRandom() *rand.ChaCha8 {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	return rand.NewChaCha8(seed)
}

// changeFew changes files in different directories, and makes some.
func changeFew(root string) error {
	random := newRandom()
	for i := range fewChanges {
		content := make([]byte, fileSize)
		if _, err := random.Read(content); err != nil {
			return err
		}
		dir := filepath.Join(root, "usr", fmt.Sprintf("dir%04d", 2*i))
		if err := os.WriteFile(filepath.Join(dir, "file07"), content, 0o644); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "new"), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeLarge writes a file of which half can be compressed away.
func writeLarge(path string, size int64) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(file, 1<<20)
	defer func() { err = errors.Join(err, out.Flush(), file.Close()) }()
	block, random := make([]byte, 64<<10), newRandom()
	for ; size > 0; size -= int64(len(block)) {
		if _, err := random.Read(block[:len(block)/2]); err != nil {
			return err
		}
		if _, err := out.Write(block); err != nil {
			return err
		}
	}
	return nil
}
