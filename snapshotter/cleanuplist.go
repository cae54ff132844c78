package snapshotter

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/space"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// cleanupList is what may go of a base, leaf first, as the snapshotter knew it that had
// the base open last. A cleanup that runs alone goes on from there, without listing
// the pool. It holds as long as the base's mark names its hash: whoever opens the
// base takes that away before anything else.
type cleanupList struct {
	// State is a hash of the records and datasets that the list was made from.
	State string             `json:"state"`
	Go    []cleanupListEntry `json:"go"`
}

type cleanupListEntry struct {
	Dataset  string    `json:"dataset"`
	Origin   string    `json:"origin"` // the dataset it is a clone of
	Template bool      `json:"template,omitempty"`
	Idle     time.Time `json:"idle,omitzero"` // a template: when its last record went
	Bytes    uint64    `json:"bytes,omitempty"`
}

// cleanupListName is the file that a list is kept in.
const cleanupListName = "cleanup.json"

// maxKeptList bounds what is read: some 100 bytes for each of a million datasets.
const maxCleanupList = 128 << 20

// keepList keeps what may go and marks the base with the list's hash.
func (s *Snapshotter) saveCleanupList(ctx context.Context) error {
	if s.config.CleanupDir == nil {
		return s.updateMark(ctx, "")
	}
	// The file lies in the pool: whoever writes it while that is suspended waits for
	// its disks, and nobody can end him.
	if state, err := s.pool.State(ctx); err != nil || state.Suspended {
		log.G(ctx).WithError(err).WithField("suspended", state.Suspended).Warn("no list of what may go is kept: the next cleanup makes it anew")
		return s.updateMark(ctx, "")
	}
	if err := removeTempFiles(s.config.CleanupDir, cleanupListName); err != nil {
		log.G(ctx).WithError(err).Warn("what a Close that was killed left of a list of what may go stays")
	}
	list := s.list()
	if len(list.Go) == 0 {
		if err := s.config.CleanupDir.Remove(cleanupListName); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return s.updateMark(ctx, "")
	}
	text, err := json.Marshal(list)
	if err == nil {
		err = writeAtomic(s.config.CleanupDir, cleanupListName, text)
	}
	if err != nil {
		log.G(ctx).WithError(err).Warn("the list of what may go could not be kept; the next cleanup makes it anew")
		return s.updateMark(ctx, "")
	}
	return s.updateMark(ctx, hashOf(text))
}

// writeWhole replaces a file by one that is whole, whatever happens.
func writeAtomic(dir *os.Root, name string, text []byte) (err error) {
	fresh := name + "." + rand.Text()
	file, err := dir.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Remove(fresh))
		}
	}()
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return dir.Rename(fresh, name)
}

// removeUnfinished removes what writeWhole left where its process was killed.
func removeTempFiles(dir *os.Root, name string) error {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), name+".") && e.Type().IsRegular() {
			errs = append(errs, dir.Remove(e.Name()))
		}
	}
	return errors.Join(errs...)
}

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func (s *Snapshotter) list() cleanupList {
	x := s.index
	nodes := x.nodes(0, time.Now().Add(maxBackoff)) // as if nothing were kept, nor put off
	origins := make(map[string]string)
	for _, n := range nodes {
		origins[n.Dataset] = n.Origin
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := cleanupList{State: x.state()}
	for _, dataset := range space.Order(nodes) {
		entry := cleanupListEntry{Dataset: dataset, Origin: origins[dataset]}
		if t := x.templates[dataset]; t != nil {
			entry.Template, entry.Idle, entry.Bytes = true, t.idle, t.bytes
		}
		list.Go = append(list.Go, entry)
	}
	return list
}

// state is a hash of all records and datasets. It wants the mutex held.
func (x *index) state() string {
	var lines []string
	for dataset := range x.templates {
		lines = append(lines, "template "+dataset)
	}
	for dataset := range x.garbage {
		lines = append(lines, "trash "+dataset)
	}
	for _, r := range x.records {
		lines = append(lines, fmt.Sprintf("record %s %d %s", r.id, r.seq, r.dataset))
	}
	slices.Sort(lines)
	sum := sha256.New()
	for _, line := range lines {
		fmt.Fprintln(sum, line)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// Cleaner cleans up a base that no snapshotter has open.
type Cleaner struct{ s *Snapshotter }

// Resume answers a cleaner that goes on from the list that was kept when the base
// was open last, or nil where there is none that holds: then New finds out what
// there is. mark is the base's, and the caller holds the base's lock.
//
// Every entry is looked at again before it is destroyed.
func Resume(ctx context.Context, pool Pool, config Config, mark Mark) (*Cleaner, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	list, err := readList(config.CleanupDir, mark.List)
	if err != nil {
		log.G(ctx).WithError(err).Debug("no list of what may go holds: it is made anew")
		return nil, nil
	}
	s := newSnapshotter(pool, config)
	if err := s.openHeld(); err != nil {
		return nil, err
	}
	s.cleanupMark, s.verify = mark, true
	s.index.resume(config.Base, list.Go)
	// From here on the list holds no more: there may be less.
	if err := s.updateMark(ctx, ""); err != nil {
		return nil, poolError("cleanup", err)
	}
	s.journal.start(s)
	return &Cleaner{s}, nil
}

// Clean is Snapshotter.Clean.
func (c *Cleaner) Clean(ctx context.Context, tell func(Progress)) error { return c.s.Clean(ctx, tell) }

// Close keeps what is left for the next time.
func (c *Cleaner) Close() error { return c.s.Close() }

func readList(dir *os.Root, hash string) (list cleanupList, err error) {
	if dir == nil || hash == "" {
		return list, errors.New("none was kept")
	}
	file, err := dir.Open(cleanupListName)
	if err != nil {
		return list, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCleanupList))
	if err != nil {
		return list, err
	}
	if hashOf(text) != hash {
		return list, fmt.Errorf("%s is not the list that the base's mark names", cleanupListName)
	}
	return list, json.Unmarshal(text, &list)
}

// resume fills the index from a list, which names parents behind their clones.
// What is not the name of a dataset of ours, which no snapshotter writes, is left
// out.
func (x *index) resume(base layout.Base, list []cleanupListEntry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range slices.Backward(list) {
		origin := x.templates[e.Origin]
		name, isTemplate := base.ParseTemplate(e.Dataset)
		if _, isRuntime := base.ParseRuntime(e.Dataset); !isTemplate && !isRuntime {
			continue
		}
		if e.Template && isTemplate {
			x.templates[e.Dataset] = &template{Template: name, parent: origin, idle: e.Idle, bytes: e.Bytes, measured: e.Bytes > 0}
		} else {
			x.discard(e.Dataset, origin)
		}
	}
}

// recheck answers those of the datasets that still are what the list says: templates
// without a record, and runtimes that are trash.
func (s *Snapshotter) recheck(ctx context.Context, order []string) (still []string, err error) {
	for _, name := range order {
		found, err := s.pool.List(ctx, name)
		if errors.Is(err, zfs.ErrNotFound) {
			still = append(still, name) // it is gone: destroying it succeeds
			continue
		}
		if err != nil {
			return nil, err
		}
		if why := s.whyKeep(found); why != "" {
			log.G(ctx).WithField("dataset", name).Warn("left alone, though it was to go: " + why)
			continue
		}
		still = append(still, name)
	}
	return still, nil
}

// whyKeep says why a dataset must stay that was to go, "" where it may.
func (s *Snapshotter) whyKeep(found []zfs.Dataset) string {
	if len(found) != 1 {
		return "there are datasets in it"
	}
	st := classify(s.config.Base, found[0])
	switch {
	case len(st.records) > 0:
		return fmt.Sprintf("it carries the record of %q", st.records[0].info.Name)
	case st.problem != "":
		return st.problem
	case st.state == StateForeign, st.state == StateUsed:
		return "it is " + string(st.state)
	}
	return ""
}
