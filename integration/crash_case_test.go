package integration

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// crashCase is an operation during which the daemon dies.
type crashCase struct {
	name string
	// fixture is what there is before it and stays; scene is made anew for each
	// crash. Either may be nil. What the daemon remembers of the fixture must not
	// change how it does the operation.
	fixture, scene func(*crashScene)
	// do is the operation, in steps that happen or do not, one after the other.
	do []func(*crashScene) error
	// again is what the steps return when they have happened already.
	again error
	// lazy: a step that returned may be lost in a crash, until the last is.
	lazy bool
	// renewed is a key whose snapshot the last step makes anew; "" for none.
	renewed string
	// uneven: how many calls the steps make depends on how quiet it is, see pace.go of
	// the snapshotter, or on whether removals are written together, see remove.go.
	uneven bool
	// cached: a template without records is needed to do the steps again.
	cached bool
	// check looks at what the daemon does not report, if not nil.
	check func(*crashScene, crashState)
}

// The names that the cases use.
const (
	crashBase  = "default/2/base"
	crashWeb   = "default/3/web"
	crashSaved = "default/4/saved"
	crashView  = "default/5/view"
)

// crashCases are the operations of the snapshotter.
func crashCases() []crashCase {
	return slicesOf(creations(), commits(), removals(), []crashCase{updating(), usage(), starting()})
}

func slicesOf(parts ...[]crashCase) []crashCase {
	var all []crashCase
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

func label(bytes int, text string) map[string]string {
	return map[string]string{"containerd.io/snapshot/note": strings.Repeat(text, bytes/len(text))}
}

func withLabel(bytes int, text string) snapshots.Opt {
	return snapshots.WithLabels(label(bytes, text))
}

func onBase(s *crashScene) { s.committed(crashBase, "", "below") }

func creations() []crashCase {
	const size = 10 << 20
	quota := snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotMaxSize: strconv.Itoa(size)})
	return []crashCase{{
		name: "prepare",
		do:   []func(*crashScene) error{func(s *crashScene) error { return s.prepare(crashWeb, "") }},
	}, {
		name:    "prepare on a template",
		fixture: onBase,
		do: []func(*crashScene) error{func(s *crashScene) error {
			return s.prepare(crashWeb, crashBase, withLabel(60_000, "long "))
		}},
	}, {
		name:  "prepare with a quota",
		scene: onBase,
		do:    []func(*crashScene) error{func(s *crashScene) error { return s.prepare(crashWeb, crashBase, quota) }},
		check: func(s *crashScene, state crashState) { s.requireQuota(state, crashWeb, size) },
	}, {
		name:    "view",
		fixture: onBase,
		do: []func(*crashScene) error{func(s *crashScene) error {
			return s.view(crashView, crashBase, withLabel(60_000, "long "))
		}},
	}, reviving(), standingIn()}
}

// fetching asks for a layer whose blob is to be fetched though it is in the pool.
func fetching(chain string) snapshots.Opt {
	return snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: chain, snapshotter.ReuseLabel: "fetch"})
}

// standingIn is a Prepare of a layer that is in the pool and is to be fetched.
func standingIn() crashCase {
	key := harness.Extraction("zoo", 3, harness.ChainID(1))
	return crashCase{
		name:    "prepare that stands for a layer",
		fixture: func(s *crashScene) { s.pulled("default/2/"+harness.ChainID(1), "", harness.ChainID(1), "layer") },
		do: []func(*crashScene) error{func(s *crashScene) error {
			err := s.prepare(key, "", fetching(harness.ChainID(1)))
			s.words[key] = []string{"layer"}
			return err
		}},
	}
}

// standInCommit is of a runtime that stands for a layer which nothing else keeps.
func standInCommit() crashCase {
	key, name := harness.Extraction("zoo", 3, harness.ChainID(1)), "zoo/4/"+harness.ChainID(1)
	return crashCase{
		name: "commit of what stands for a layer",
		scene: func(s *crashScene) {
			s.pulled("default/2/"+harness.ChainID(1), "", harness.ChainID(1), "layer")
			s.must(s.prepare(key, "", fetching(harness.ChainID(1))))
			s.words[key] = []string{"layer"}
			s.must(s.sn.Remove(s.ctx, "default/2/"+harness.ChainID(1)), s.written("default/2/"+harness.ChainID(1)), s.sn.Cleanup(s.ctx))
		},
		do:    []func(*crashScene) error{func(s *crashScene) error { return s.commit(name, key, harness.WithRef(harness.ChainID(1))) }},
		again: errdefs.ErrNotFound,
	}
}

// reviving is a Prepare of a cached layer.
func reviving() crashCase {
	name := "default/4/" + harness.ChainID(1)
	return crashCase{
		name: "prepare that revives a layer",
		scene: func(s *crashScene) {
			s.pulled("default/2/"+harness.ChainID(1), "", harness.ChainID(1), "cached")
			s.must(s.sn.Remove(s.ctx, "default/2/"+harness.ChainID(1)), s.written("default/2/"+harness.ChainID(1)))
		},
		do: []func(*crashScene) error{func(s *crashScene) error {
			s.words[name] = []string{"cached"}
			err := s.prepare(harness.Extraction("default", 4, harness.ChainID(1)), "", harness.WithRef(harness.ChainID(1)))
			switch {
			case err == nil:
				return errors.New("the layer is to be unpacked though it is there")
			case errdefs.IsAlreadyExists(err):
				return nil
			}
			return err
		}},
		cached: true,
	}
}

// requireQuota wants a snapshot that is there to have its quota.
func (s *crashScene) requireQuota(state crashState, key string, size uint64) {
	s.t.Helper()
	if _, ok := state[key]; !ok {
		return
	}
	props, err := s.base.Client.Properties(s.ctx, s.dataset(key), "refquota")
	s.must(err)
	quota, err := strconv.ParseUint(props["refquota"].Value, 10, 64)
	s.must(err)
	require.GreaterOrEqual(s.t, quota, size, "refquota of %q", key)
}

func commits() []crashCase {
	commit := []func(*crashScene) error{func(s *crashScene) error {
		return s.commit(crashSaved, crashWeb, withLabel(20_000, "saved "))
	}}
	return []crashCase{layerCommit(), joiningCommit(), standInCommit(), {
		name:    "commit",
		fixture: onBase,
		scene:   func(s *crashScene) { s.active(crashWeb, crashBase, "above", withLabel(60_000, "long ")) },
		do:      commit,
		again:   errdefs.ErrNotFound,
	}, {
		name:    "commit of a mounted one",
		fixture: onBase,
		scene: func(s *crashScene) {
			s.active(crashWeb, crashBase, "above")
			s.hold(crashWeb)
		},
		do:    commit,
		again: errdefs.ErrNotFound,
		check: func(s *crashScene, _ crashState) {
			// A process that has it mounted continues as if nothing had happened.
			s.must(writeWord(s.held, "onwards"))
			requireWords(s.t, s.held, []string{"above", "below", "onwards"}, "the mounted "+crashWeb)
			s.must(removeWord(s.held, "onwards"))
		},
	}}
}

func layerCommit() crashCase {
	key, name := harness.Extraction("default", 3, harness.ChainID(2)), "default/4/"+harness.ChainID(2)
	return crashCase{
		name:    "commit of a layer",
		fixture: func(s *crashScene) { s.pulled("default/2/"+harness.ChainID(1), "", harness.ChainID(1), "below") },
		scene: func(s *crashScene) {
			s.active(key, "default/2/"+harness.ChainID(1), "above", harness.WithRef(harness.ChainID(2)))
		},
		do:    []func(*crashScene) error{func(s *crashScene) error { return s.commit(name, key, harness.WithRef(harness.ChainID(2))) }},
		again: errdefs.ErrNotFound,
	}
}

// joiningCommit is of a layer that another client has committed meanwhile: what
// counts is what is there.
func joiningCommit() crashCase {
	key, name := harness.Extraction("k8s.io", 3, harness.ChainID(1)), "k8s.io/4/"+harness.ChainID(1)
	return crashCase{
		name: "commit that joins",
		scene: func(s *crashScene) {
			s.active(key, "", "other", withLabel(60_000, "long "))
			s.pulled("default/2/"+harness.ChainID(1), "", harness.ChainID(1), "first")
		},
		do: []func(*crashScene) error{func(s *crashScene) error {
			err := s.commit(name, key)
			s.words[name] = []string{"first"}
			return err
		}},
		again: errdefs.ErrNotFound,
	}
}

func removals() []crashCase {
	remove := func(key string) func(*crashScene) error {
		return func(s *crashScene) error { return s.sn.Remove(s.ctx, key) }
	}
	written := func(names ...string) func(*crashScene) error {
		return func(s *crashScene) error { return s.written(names...) }
	}
	cleanup := func(s *crashScene) error { return s.sn.Cleanup(s.ctx) }
	return []crashCase{{
		name:  "remove",
		scene: func(s *crashScene) { s.active(crashWeb, "", "above", withLabel(100_000, "long ")) },
		do:    []func(*crashScene) error{remove(crashWeb), written(crashWeb)},
		lazy:  true,
	}, {
		name:  "remove and prepare again",
		scene: func(s *crashScene) { s.active(crashWeb, "", "above", withLabel(60_000, "old ")) },
		do: []func(*crashScene) error{remove(crashWeb), func(s *crashScene) error {
			return s.prepare(crashWeb, "", withLabel(20_000, "new "))
		}},
		lazy:    true,
		renewed: crashWeb,
	}, {
		name: "cleanup of a dataset with a foreign snapshot",
		scene: func(s *crashScene) {
			s.active(crashWeb, "", "above")
			s.must(s.base.Client.Apply(s.ctx, zfs.Snapshot(s.dataset(crashWeb)+"@nightly")), s.sn.Remove(s.ctx, crashWeb), s.written(crashWeb))
		},
		do:     []func(*crashScene) error{cleanup},
		uneven: true,
	}, {
		name: "remove and cleanup",
		scene: func(s *crashScene) {
			s.committed(crashBase, "", "below", withLabel(60_000, "long "))
			s.must(s.view(crashView, crashBase, withLabel(60_000, "long ")))
		},
		do:     []func(*crashScene) error{remove(crashView), remove(crashBase), cleanup},
		lazy:   true,
		uneven: true,
	}, {
		name:   "cleanup",
		scene:  muchToClean,
		do:     []func(*crashScene) error{cleanup},
		uneven: true,
	}, {
		name: "stop",
		scene: func(s *crashScene) {
			s.active(crashWeb, "", "above", withLabel(60_000, "long "))
			s.active(crashSaved, "", "beside", withLabel(60_000, "long "))
		},
		do: []func(*crashScene) error{remove(crashWeb), remove(crashSaved), func(s *crashScene) error {
			if !s.running() {
				return nil
			}
			return s.stop()
		}},
		lazy:   true,
		uneven: true,
	}}
}

// muchToClean leaves garbage, cached layers, and things in use beside
// them.
func muchToClean(s *crashScene) {
	one, two := "default/2/"+harness.ChainID(1), "default/2/"+harness.ChainID(2)
	s.pulled(one, "", harness.ChainID(1), "one")
	s.pulled(two, one, harness.ChainID(2), "two")
	s.committed(crashBase, one, "opaque")
	s.active(crashWeb, two, "above")
	s.must(s.prepare(crashSaved, ""))
	gone := []string{crashWeb, crashBase, two, one}
	for _, name := range gone {
		s.must(s.sn.Remove(s.ctx, name))
	}
	s.must(s.written(gone...))
}

func updating() crashCase {
	return crashCase{
		name: "update",
		scene: func(s *crashScene) {
			onBase(s)
			s.active(crashWeb, crashBase, "above", withLabel(100_000, "old "))
		},
		do: []func(*crashScene) error{
			func(s *crashScene) error { return s.update(crashWeb, label(60_000, "new ")) },
			func(s *crashScene) error { return s.update(crashBase, label(20_000, "new ")) },
		},
	}
}

func usage() crashCase {
	return crashCase{
		name: "usage",
		scene: func(s *crashScene) {
			onBase(s)
			s.active(crashWeb, crashBase, "above")
		},
		do: []func(*crashScene) error{func(s *crashScene) error {
			_, err := s.sn.Usage(s.ctx, crashWeb)
			return err
		}},
	}
}

// starting is the start of a daemon that finds the remains of everything.
func starting() crashCase {
	return crashCase{
		name:  "start",
		scene: remains,
		do: []func(*crashScene) error{func(s *crashScene) error {
			if s.running() || s.launch(s.t) {
				return nil
			}
			return fmt.Errorf("the daemon ended at its start: %w", s.d.Err)
		}},
	}
}

// remains leaves a pool as daemons may that were killed: a commit that was cut
// off before promote, one behind it, one behind its record, an update that was
// cut off, a clone without a record, and the base not mounted.
func remains(s *crashScene) {
	for _, key := range []string{"before promote", "behind promote", "behind record", "updated"} {
		s.must(s.prepare(key, "", withLabel(20_000, "long ")))
	}
	s.write("behind promote", "kept")
	before, behind, finished, updated := s.dataset("before promote"), s.dataset("behind promote"), s.dataset("behind record"), s.dataset("updated")
	records := s.props(finished)
	s.must(s.commit(crashSaved, "behind record"))
	marked := s.props(finished)
	old := s.props(updated)
	s.must(s.update("updated", label(10_000, "new ")))
	s.note()
	s.must(s.stop())

	var cut []zfs.Op
	newHalf := func(runtime string) string {
		partial := s.base.Opaque(layout.NewID()).Dataset()
		cut = append(cut, zfs.Snapshot(runtime+"@"+layout.Extracted), zfs.Clone(runtime+"@"+layout.Extracted, partial))
		return partial
	}
	newHalf(before)
	cut = append(cut, zfs.Promote(newHalf(behind), behind))
	for prop := range marked {
		cut = append(cut, zfs.Inherit(finished, prop))
	}
	for dataset, props := range map[string]map[string]string{finished: records, updated: old} {
		for prop, value := range props {
			cut = append(cut, zfs.Set(dataset, prop, value))
		}
	}
	cut = append(cut, zfs.Clone(s.base.Empty().Snapshot(), s.base.Runtime()+"/orphan-0123456789abcdef"))
	s.must(s.base.Client.Apply(s.ctx, cut...))
	out, err := exec.Command("zfs", "unmount", s.base.String()).CombinedOutput()
	require.NoError(s.t, err, "%s", out)
}

// props are the user properties of ours on a dataset.
func (s *crashScene) props(dataset string) map[string]string {
	s.t.Helper()
	for _, d := range s.base.List(s.t) {
		if d.Name == dataset {
			return d.Props
		}
	}
	require.Fail(s.t, "no dataset", dataset)
	return nil
}
