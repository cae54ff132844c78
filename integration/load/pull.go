package load

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/zfstpl/zfstpl/integration/harness"
	"github.com/zfstpl/zfstpl/integration/model"
)

// Images are chains of layers that all workers pull.
const images, depth = 6, 3

// pull pulls the next layer of some image, as containerd does.
func (w *worker) pull() error {
	image, parent, content := w.r.IntN(images), "", ""
	for layer := range depth {
		chain := harness.ChainID(100*image + layer + 1)
		text := fmt.Sprintf("%d/%d;", image, layer)
		name, ok := w.layer(chain)
		if !ok {
			return w.pullLayer(parent, chain, content, text)
		}
		parent = name
		content += text
	}
	return nil
}

func (w *worker) layer(chain string) (name string, ok bool) {
	if name, ok := w.model.Layer(chain); ok {
		return name, true
	}
	name, ok = w.adopted[chain]
	return name, ok
}

// pullLayer pulls a layer that adds text to the content of its parent. Other workers decide
// whether the layer exists.
func (w *worker) pullLayer(parent, chain, below, text string) error {
	ctx := context.Background()
	key, labels := w.name("extract-1-Ab_1 "+chain), w.labels()
	mayReuse := w.r.IntN(4) > 0
	if mayReuse {
		labels[snapshots.LabelSnapshotRef] = chain
	}
	mounts, err := w.sn.Prepare(ctx, key, parent, snapshots.WithLabels(labels))
	_, isOwn := w.model.Get(parent)
	switch {
	case errdefs.IsNotFound(err) && parent != "" && !isOwn:
		// Its owner has removed it.
		maps.DeleteFunc(w.adopted, func(_, name string) bool { return name == parent })
		return nil
	case errdefs.IsAlreadyExists(err) && mayReuse:
		s := model.Snapshot{Kind: snapshots.KindCommitted, Parent: parent, Labels: labels, Content: below + text}
		return w.adopt(chain, model.ReusedName(key, chain), s)
	case err != nil:
		return err
	}
	w.model.Put(key, model.Snapshot{Kind: snapshots.KindActive, Parent: parent, Labels: labels, Content: below})
	if err := w.append(key, mounts, text); err != nil {
		return err
	}
	name := w.name(chain)
	return predicted(w.model.Commit(name, key, labels), w.sn.Commit(ctx, name, key, snapshots.WithLabels(labels)))
}

// adopt finds an existing layer as containerd does: under the name that the Prepare gave it,
// or under another worker's. It may be removed again.
func (w *worker) adopt(chain, reused string, s model.Snapshot) error {
	var found []string
	filter := fmt.Sprintf("labels.%q==%s,parent==%q", snapshots.LabelSnapshotRef, chain, s.Parent)
	err := w.sn.Walk(context.Background(), func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted { // not an extraction of it
			found = append(found, info.Name)
		}
		return nil
	}, filter)
	switch {
	case slices.Contains(found, reused):
		w.model.Put(reused, s)
	case len(found) > 0:
		w.adopted[chain] = found[0]
	}
	return err
}
