package crash

import (
	"fmt"
	"os/exec"

	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/snapshotter/layout"
	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

// starting is the start of a daemon after all kinds of interrupted operations.
func starting() Case {
	return Case{
		Name:  "start",
		setUp: interruptOperations,
		steps: []func(*Fixture) error{func(f *Fixture) error {
			if f.d.IsRunning() || f.launch(f.t) {
				return nil
			}
			return fmt.Errorf("the daemon ended at its start: %w", f.d.Err)
		}},
	}
}

// interruptOperations leaves a pool as killed daemons may leave it: commits that were
// interrupted before promote, after promote and after the record, an interrupted update, a
// clone without a record, and the base not mounted.
func interruptOperations(f *Fixture) {
	for _, key := range []string{"before promote", "after promote", "after record", "updated"} {
		f.must(f.prepare(key, "", label(20_000, "long ")))
	}
	f.write("after promote", "kept")
	before, after, finished, updated := f.dataset("before promote"), f.dataset("after promote"), f.dataset("after record"), f.dataset("updated")
	active := f.properties(finished)
	f.must(f.commit(savedName, "after record", nil))
	committed := f.properties(finished)
	old := f.properties(updated)
	f.must(f.update("updated", label(10_000, "new ")))
	f.recordState()
	f.must(f.stop())

	var ops []zfs.Op
	newPartial := func(runtime string) string {
		partial := f.base.Opaque(layout.NewID()).Dataset()
		ops = append(ops, zfs.Snapshot(runtime+"@"+layout.Extracted), zfs.Clone(runtime+"@"+layout.Extracted, partial))
		return partial
	}
	newPartial(before)
	ops = append(ops, zfs.Promote(newPartial(after), after))
	for prop := range committed {
		ops = append(ops, zfs.Inherit(finished, prop))
	}
	for dataset, props := range map[string]map[string]string{finished: active, updated: old} {
		for prop, value := range props {
			ops = append(ops, zfs.Set(dataset, prop, value))
		}
	}
	ops = append(ops, zfs.Clone(f.base.Empty().Snapshot(), f.base.Runtime()+"/orphan-0123456789abcdef"))
	f.must(f.base.Client.Apply(f.ctx, ops...))
	out, err := exec.Command("zfs", "unmount", f.base.String()).CombinedOutput()
	require.NoError(f.t, err, "%s", out)
}
