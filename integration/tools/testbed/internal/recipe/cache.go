package recipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Cache is the directory that everything is built into.
type Cache struct {
	Dir string
}

// OpenCache returns the user's cache and makes it if there is none.
func OpenCache() (*Cache, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	cache := &Cache{Dir: filepath.Join(user, "zfstpl", "testbed")}
	for _, dir := range []string{cache.Dir, cache.temporary(), cache.logs(), cache.Disks(), cache.debs(), cache.apt()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return cache, nil
}

// Disks is where kept disks are that have a name and no path.
func (c *Cache) Disks() string { return filepath.Join(c.Dir, "disks") }

// Runs is where runs have what they need while they last.
func (c *Cache) Runs() string { return filepath.Join(c.Dir, "runs") }

func (c *Cache) temporary() string { return filepath.Join(c.Dir, "tmp") }
func (c *Cache) logs() string      { return filepath.Join(c.Dir, "log") }
func (c *Cache) debs() string      { return filepath.Join(c.Dir, "debs") }
func (c *Cache) apt() string       { return filepath.Join(c.Dir, "apt") }

// artefact is where a stage's result is, or will be.
func (c *Cache) artefact(s *stage) string {
	return filepath.Join(c.Dir, s.name+"-"+s.key())
}

func (c *Cache) has(s *stage) bool {
	_, err := os.Stat(c.artefact(s))
	return err == nil
}

// lock waits until no other build works on the cache. The caller unlocks by
// closing the file.
func (c *Cache) lock(ctx context.Context, say func(string, ...any)) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(c.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(err, file.Close())
		}
		if !told {
			say("another build works on %s; waiting for it", c.Dir)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), file.Close())
		case <-time.After(200 * time.Millisecond): // a blocking flock could not be interrupted
		}
	}
}

// clean removes what interrupted builds left; the lock is held.
func (c *Cache) clean() error {
	return removeEntries(c.temporary(), func(string) bool { return true })
}

// Prune removes all artefacts that none of the stages needs, and returns
// their names. Kept disks stay.
func (c *Cache) Prune(ctx context.Context, say func(string, ...any)) (err error) {
	lock, err := c.lock(ctx, say)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	needed := map[string]bool{}
	for _, release := range ZFSReleases() {
		for _, s := range stages(release) {
			needed[filepath.Base(c.artefact(s))] = true
		}
	}
	isOld := func(name string) bool {
		stageName, key, found := cutLast(name, "-")
		if !found || len(key) != keyLength || needed[name] || stageName == "accel" {
			return false
		}
		say("removing %s", name)
		return true
	}
	return errors.Join(c.clean(), removeEntries(c.Dir, isOld), removeEntries(c.debs(), func(string) bool { return true }))
}

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

func removeEntries(dir string, matches func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !matches(entry.Name()) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return fmt.Errorf("remove what is not needed: %w", err)
		}
	}
	return nil
}
