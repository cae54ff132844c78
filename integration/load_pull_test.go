package integration

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/snapshotter/layout"
)

// Images are chains of layers that all workers pull.
const loadImages, loadDepth = 6, 3

// pull does for the next layer of some image what containerd does.
func (w *loadWorker) pull() error {
	image, parent, content := w.r.IntN(loadImages), "", ""
	for layer := range loadDepth {
		chain := harness.ChainID(100*image + layer + 1)
		name, have := w.layer(chain)
		if !have {
			return w.pullLayer(parent, chain, content, fmt.Sprintf("%d/%d;", image, layer))
		}
		parent = name
		content += fmt.Sprintf("%d/%d;", image, layer)
	}
	return nil
}

func (w *loadWorker) layer(chain string) (name string, ok bool) {
	for _, name := range slices.Sorted(maps.Keys(w.own)) {
		if layout.ClientName(name) == chain {
			return name, true
		}
	}
	name, ok = w.adopted[chain]
	return name, ok
}

func (w *loadWorker) pullLayer(parent, chain, below, text string) error {
	ctx := context.Background()
	key, labels := w.name("extract-1-Ab_1 "+chain), w.labels()
	revives := w.r.IntN(4) > 0
	if revives {
		labels[snapshots.LabelSnapshotRef] = chain
	}
	mounts, err := w.sn.Prepare(ctx, key, parent, snapshots.WithLabels(labels))
	_, mine := w.own[parent]
	switch {
	case errdefs.IsNotFound(err) && parent != "" && !mine:
		// Its owner has removed it.
		maps.DeleteFunc(w.adopted, func(_, name string) bool { return name == parent })
		return nil
	case errdefs.IsAlreadyExists(err) && revives:
		reused := strings.TrimSuffix(key, layout.ClientName(key)) + chain
		return w.adopt(chain, reused, loadSnap{snapshots.KindCommitted, parent, labels, below + text, true})
	case err != nil:
		return err
	}
	w.own[key] = loadSnap{kind: snapshots.KindActive, parent: parent, labels: labels, content: below}
	if err := w.append(key, mounts, text); err != nil {
		return err
	}
	name := w.name(chain)
	if err := w.sn.Commit(ctx, name, key, snapshots.WithLabels(labels)); err != nil {
		return err
	}
	delete(w.own, key)
	w.own[name] = loadSnap{snapshots.KindCommitted, parent, labels, below + text, true}
	return nil
}

// adopt finds a layer as containerd does: under the name that was just made for
// us, or under another worker's. It may be gone again.
func (w *loadWorker) adopt(chain, reused string, s loadSnap) error {
	var found []string
	filter := fmt.Sprintf("labels.%q==%s,parent==%q", snapshots.LabelSnapshotRef, chain, s.parent)
	err := w.sn.Walk(context.Background(), func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted { // and no extraction of it
			found = append(found, info.Name)
		}
		return nil
	}, filter)
	switch {
	case slices.Contains(found, reused):
		w.own[reused] = s
	case len(found) > 0:
		w.adopted[chain] = found[0]
	}
	return err
}
