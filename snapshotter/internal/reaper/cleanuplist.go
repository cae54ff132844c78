package reaper

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
	"strings"
	"time"

	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
	"github.com/zfstpl/zfstpl/snapshotter/internal/state"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// cleanupList has the datasets of a base that a cleanup may destroy, leaf first. A
// snapshotter saves it when it closes. A cleanup without a daemon uses it instead of
// listing the pool. The list is valid while the base's mark has its hash. A snapshotter that
// opens the base removes the hash before it changes anything.
type cleanupList struct {
	Datasets []index.Removable `json:"go"`
}

// ListName is the name of the file with the list.
const ListName = "cleanup.json"

// maxCleanupList limits the bytes that are read: about 100 for each of a million datasets.
const maxCleanupList = 128 << 20

// SaveList saves the list and writes its hash to the base's mark.
func (r *Reaper) SaveList(ctx context.Context) error {
	if r.config.CleanupDir == nil {
		return r.updateMark(ctx, "")
	}
	// The file is in the pool. A write to a suspended pool blocks and cannot be
	// interrupted.
	if state, err := r.pool.State(ctx); err != nil || state.Suspended {
		log.G(ctx).WithError(err).WithField("suspended", state.Suspended).Warn("not saving cleanup list; the next cleanup lists the pool")
		return r.updateMark(ctx, "")
	}
	if err := removeTempFiles(r.config.CleanupDir, ListName); err != nil {
		log.G(ctx).WithError(err).Warn("failed to remove temporary files of cleanup lists")
	}
	list := cleanupList{r.Index.Removable(time.Now())}
	if len(list.Datasets) == 0 {
		if err := r.config.CleanupDir.Remove(ListName); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return r.updateMark(ctx, "")
	}
	text, err := json.Marshal(list)
	if err == nil {
		err = writeAtomic(r.config.CleanupDir, ListName, text)
	}
	if err != nil {
		log.G(ctx).WithError(err).Warn("failed to save cleanup list; the next cleanup lists the pool")
		return r.updateMark(ctx, "")
	}
	return r.updateMark(ctx, hashOf(text))
}

// writeAtomic replaces a file atomically.
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

// removeTempFiles removes the temporary files of killed calls of writeAtomic.
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

// ReadList reads the list with a hash. It returns an error if there is none.
func ReadList(dir *os.Root, hash string) (list cleanupList, err error) {
	if dir == nil || hash == "" {
		return list, errors.New("no cleanup list was saved")
	}
	file, err := dir.Open(ListName)
	if err != nil {
		return list, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCleanupList))
	if err != nil {
		return list, err
	}
	if hashOf(text) != hash {
		return list, fmt.Errorf("%s does not have the hash in the base's cleanup mark", ListName)
	}
	return list, json.Unmarshal(text, &list)
}

// recheck returns those of the datasets that may still be destroyed: templates without
// records, and garbage. It logs the others.
func (r *Reaper) recheck(ctx context.Context, order []string) (still []string, err error) {
	for _, name := range order {
		found, err := r.pool.List(ctx, name)
		if errors.Is(err, zfs.ErrNotFound) {
			still = append(still, name) // does not exist: the destroy succeeds
			continue
		}
		if err != nil {
			return nil, err
		}
		if reason := state.WhyKeep(r.config.Base, found); reason != "" {
			log.G(ctx).WithField("dataset", name).WithField("reason", reason).Warn("keeping dataset of cleanup list")
			continue
		}
		still = append(still, name)
	}
	return still, nil
}
