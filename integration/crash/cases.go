package crash

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// Case is an operation during which the daemon is killed.
type Case struct {
	Name string
	// setUpShared creates what all crashes of the case need and do not change. setUp creates
	// the rest for each crash. Both may be nil. What the daemon remembers of setUpShared must
	// not change how it performs the operation.
	setUpShared, setUp func(*Fixture)
	// steps are the operation. Each step happens or does not.
	steps []func(*Fixture) error
	// again is the error of the steps if they have happened already.
	again error
	// mayLose: a crash may lose the effect of a step that returned, unless the last returned.
	mayLose bool
	// recreated is a key whose snapshot the last step creates again, or "".
	recreated string
	// varies: the number of calls that the steps make depends on other operations, see
	// pace.go of the snapshotter, or on whether removals are written together, see remove.go.
	varies bool
	// needsCached: the steps need a template without records if they are repeated.
	needsCached bool
	// check checks what the daemon does not report. It may be nil.
	check func(*Fixture)
}

// The names that the cases use.
const (
	baseName  = "default/2/base"
	webKey    = "default/3/web"
	savedName = "default/4/saved"
	viewKey   = "default/5/view"
)

// Cases returns the operations of the snapshotter.
func Cases() []Case {
	return slices.Concat(creations(), commits(), removals(), []Case{updating(), usage(), starting()})
}

func label(bytes int, text string) map[string]string {
	return map[string]string{"containerd.io/snapshot/note": strings.Repeat(text, bytes/len(text))}
}

// ref returns the label that asks for a layer.
func ref(chain string) map[string]string {
	return map[string]string{snapshots.LabelSnapshotRef: chain}
}

// fetch returns the labels that ask for a layer and for its blob, although the layer exists.
func fetch(chain string) map[string]string {
	return map[string]string{snapshots.LabelSnapshotRef: chain, snapshotter.ReuseLabel: "fetch"}
}

func createBase(f *Fixture) { f.committed(baseName, "", "below", nil) }

func creations() []Case {
	const size = 10 << 20
	quota := map[string]string{snapshots.LabelSnapshotMaxSize: strconv.Itoa(size)}
	return []Case{{
		Name:  "prepare",
		steps: []func(*Fixture) error{func(f *Fixture) error { return f.prepare(webKey, "", nil) }},
	}, {
		Name:        "prepare on a template",
		setUpShared: createBase,
		steps: []func(*Fixture) error{func(f *Fixture) error {
			return f.prepare(webKey, baseName, label(60_000, "long "))
		}},
	}, {
		Name:  "prepare with a quota",
		setUp: createBase,
		steps: []func(*Fixture) error{func(f *Fixture) error { return f.prepare(webKey, baseName, quota) }},
		check: func(f *Fixture) { f.requireQuota(webKey, size) },
	}, {
		Name:        "view",
		setUpShared: createBase,
		steps: []func(*Fixture) error{func(f *Fixture) error {
			return f.view(viewKey, baseName, label(60_000, "long "))
		}},
	}, reuse(), standIn()}
}

// standIn is a Prepare of an existing layer whose blob containerd downloads.
func standIn() Case {
	id := harness.ChainID(1)
	return Case{
		Name:        "prepare of a stand-in",
		setUpShared: func(f *Fixture) { f.pulled("default/2/"+id, "", id, "layer") },
		steps: []func(*Fixture) error{func(f *Fixture) error {
			return f.prepare(harness.Extraction("zoo", 3, id), "", fetch(id))
		}},
	}
}

// reuse is a Prepare of a cached layer.
func reuse() Case {
	id := harness.ChainID(1)
	return Case{
		Name: "prepare that reuses a layer",
		setUp: func(f *Fixture) {
			f.pulled("default/2/"+id, "", id, "cached")
			f.removeWritten("default/2/" + id)
		},
		steps: []func(*Fixture) error{func(f *Fixture) error {
			err := f.prepare(harness.Extraction("default", 4, id), "", ref(id))
			if errdefs.IsAlreadyExists(err) {
				return nil
			}
			return errors.Join(err, errors.New("the layer is not reused"))
		}},
		needsCached: true,
	}
}

// requireQuota asserts that a snapshot has its quota, if the snapshot exists.
func (f *Fixture) requireQuota(key string, size uint64) {
	f.t.Helper()
	if _, ok := f.model.Get(key); !ok {
		return
	}
	props, err := f.base.Client.Properties(f.ctx, f.dataset(key), "refquota")
	f.must(err)
	quota, err := strconv.ParseUint(props["refquota"].Value, 10, 64)
	f.must(err)
	require.GreaterOrEqual(f.t, quota, size, "refquota of %q", key)
}

func commits() []Case {
	commit := []func(*Fixture) error{func(f *Fixture) error {
		return f.commit(savedName, webKey, label(20_000, "saved "))
	}}
	return []Case{layerCommit(), joiningCommit(), standInCommit(), {
		Name:        "commit",
		setUpShared: createBase,
		setUp:       func(f *Fixture) { f.active(webKey, baseName, "above", label(60_000, "long ")) },
		steps:       commit,
		again:       errdefs.ErrNotFound,
	}, {
		Name:        "commit of a mounted snapshot",
		setUpShared: createBase,
		setUp: func(f *Fixture) {
			f.active(webKey, baseName, "above", nil)
			f.mount(webKey)
		},
		steps: commit,
		again: errdefs.ErrNotFound,
		check: func(f *Fixture) {
			// A process that has the snapshot mounted continues.
			f.must(writeWord(f.mounted, "onwards"))
			requireWords(f.t, f.mounted, []string{"above", "below", "onwards"}, "the mounted "+webKey)
			f.must(removeWord(f.mounted, "onwards"))
		},
	}}
}

func layerCommit() Case {
	one, two := harness.ChainID(1), harness.ChainID(2)
	key := harness.Extraction("default", 3, two)
	return Case{
		Name:        "commit of a layer",
		setUpShared: func(f *Fixture) { f.pulled("default/2/"+one, "", one, "below") },
		setUp:       func(f *Fixture) { f.active(key, "default/2/"+one, "above", ref(two)) },
		steps:       []func(*Fixture) error{func(f *Fixture) error { return f.commit("default/4/"+two, key, ref(two)) }},
		again:       errdefs.ErrNotFound,
	}
}

// joiningCommit is of a layer that another client has committed. The existing layer counts.
func joiningCommit() Case {
	id := harness.ChainID(1)
	key, name := harness.Extraction("k8s.io", 3, id), "k8s.io/4/"+id
	return Case{
		Name: "commit of an existing layer",
		setUp: func(f *Fixture) {
			f.active(key, "", "other", label(60_000, "long "))
			f.pulled("default/2/"+id, "", id, "first")
		},
		steps: []func(*Fixture) error{func(f *Fixture) error { return f.commit(name, key, nil) }},
		again: errdefs.ErrNotFound,
	}
}

// standInCommit is of a stand-in for a layer without records.
func standInCommit() Case {
	id := harness.ChainID(1)
	key, name := harness.Extraction("zoo", 3, id), "zoo/4/"+id
	return Case{
		Name: "commit of a stand-in",
		setUp: func(f *Fixture) {
			f.pulled("default/2/"+id, "", id, "layer")
			f.must(f.prepare(key, "", fetch(id)))
			f.removeWritten("default/2/" + id)
			f.must(f.cleanup())
		},
		steps: []func(*Fixture) error{func(f *Fixture) error { return f.commit(name, key, ref(id)) }},
		again: errdefs.ErrNotFound,
	}
}

func removals() []Case {
	remove := func(key string) func(*Fixture) error {
		return func(f *Fixture) error { return f.remove(key) }
	}
	waitUntilWritten := func(f *Fixture) error { return f.waitUntilWritten(webKey) }
	return []Case{{
		Name:    "remove",
		setUp:   func(f *Fixture) { f.active(webKey, "", "above", label(100_000, "long ")) },
		steps:   []func(*Fixture) error{remove(webKey), waitUntilWritten},
		mayLose: true,
	}, {
		Name:  "remove and prepare again",
		setUp: func(f *Fixture) { f.active(webKey, "", "above", label(60_000, "old ")) },
		steps: []func(*Fixture) error{remove(webKey), func(f *Fixture) error {
			return f.prepare(webKey, "", label(20_000, "new "))
		}},
		mayLose:   true,
		recreated: webKey,
	}, {
		Name: "cleanup of a dataset with a foreign snapshot",
		setUp: func(f *Fixture) {
			f.active(webKey, "", "above", nil)
			f.must(f.base.Client.Apply(f.ctx, zfs.Snapshot(f.dataset(webKey)+"@nightly")))
			f.removeWritten(webKey)
		},
		steps:  []func(*Fixture) error{(*Fixture).cleanup},
		varies: true,
	}, {
		Name: "remove and cleanup",
		setUp: func(f *Fixture) {
			f.committed(baseName, "", "below", label(60_000, "long "))
			f.must(f.view(viewKey, baseName, label(60_000, "long ")))
		},
		steps:   []func(*Fixture) error{remove(viewKey), remove(baseName), (*Fixture).cleanup},
		mayLose: true,
		varies:  true,
	}, {
		Name:   "cleanup",
		setUp:  createGarbage,
		steps:  []func(*Fixture) error{(*Fixture).cleanup},
		varies: true,
	}, {
		Name: "stop",
		setUp: func(f *Fixture) {
			f.active(webKey, "", "above", label(60_000, "long "))
			f.active(savedName, "", "beside", label(60_000, "long "))
		},
		steps: []func(*Fixture) error{remove(webKey), remove(savedName), func(f *Fixture) error {
			if !f.d.IsRunning() {
				return nil
			}
			return f.stop()
		}},
		mayLose: true,
		varies:  true,
	}}
}

// createGarbage leaves garbage and cached layers, and a snapshot that is not removed.
func createGarbage(f *Fixture) {
	one, two := "default/2/"+harness.ChainID(1), "default/2/"+harness.ChainID(2)
	f.pulled(one, "", harness.ChainID(1), "one")
	f.pulled(two, one, harness.ChainID(2), "two")
	f.committed(baseName, one, "opaque", nil)
	f.active(webKey, two, "above", nil)
	f.must(f.prepare(savedName, "", nil))
	f.removeWritten(webKey, baseName, two, one)
}

func updating() Case {
	return Case{
		Name: "update",
		setUp: func(f *Fixture) {
			createBase(f)
			f.active(webKey, baseName, "above", label(100_000, "old "))
		},
		steps: []func(*Fixture) error{
			func(f *Fixture) error { return f.update(webKey, label(60_000, "new ")) },
			func(f *Fixture) error { return f.update(baseName, label(20_000, "new ")) },
		},
	}
}

func usage() Case {
	return Case{
		Name: "usage",
		setUp: func(f *Fixture) {
			createBase(f)
			f.active(webKey, baseName, "above", nil)
		},
		steps: []func(*Fixture) error{func(f *Fixture) error {
			_, err := f.sn.Usage(f.ctx, webKey)
			return err
		}},
	}
}
