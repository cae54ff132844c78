package index

import (
	"errors"
	"time"

	"github.com/zfstpl/zfstpl/snapshotter/errkind"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// MarkUnknown records the possible residue of a commit that failed with err: a snapshot of
// the runtime and, if the outcome is unknown, a dataset of the template's name. It reserves
// that name if a dataset has it or may have it.
func (x *Index) MarkUnknown(runtime, template string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	exists := errors.Is(err, zfs.ErrExists)
	if errkind.IsAmbiguous(err) || exists {
		x.reservedNames[template] = true
	}
	if exists || !errkind.IsAmbiguous(err) {
		template = "" // not created by this commit, or rolled back
	}
	x.residue[runtime] = template
}

// ClearUnknown records that a runtime has no residue.
func (x *Index) ClearUnknown(runtime string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.residue, runtime)
}

// ReleasePartial records that a partial dataset is destroyed and its name is free.
func (x *Index) ReleasePartial(runtime, partial string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.reservedNames, partial)
	x.residue[runtime] = ""
}

// ResidueOf returns the partial dataset of a runtime with residue, or "", and whether there
// is residue.
func (x *Index) ResidueOf(runtime string) (partial string, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	partial, ok = x.residue[runtime]
	return partial, ok
}

// dropResidue makes the partial dataset of a runtime garbage, together with the runtime.
// The caller holds the mutex.
func (x *Index) dropResidue(runtime string, now time.Time) {
	if partial := x.residue[runtime]; partial != "" && x.reservedNames[partial] && x.templates[partial] == nil {
		x.discard(partial, nil, now)
		x.garbage[partial].runtime = runtime
	}
	delete(x.residue, runtime)
}
