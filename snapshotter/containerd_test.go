package snapshotter

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/require"
)

// This file imitates containerd's unpacker and its metadata store.

// chain returns a chain ID that consists of one hexadecimal digit.
func chain(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

func label(key, value string) snapshots.Opt {
	return snapshots.WithLabels(map[string]string{key: value})
}

// ref sets the label by which an unpacker requests a layer.
func ref(id string) snapshots.Opt { return label(snapshots.LabelSnapshotRef, id) }

// backend returns a new name in the snapshotter for a client's key, as the metadata store
// makes it.
func (s *fixture) backend(namespace, key string) string {
	s.n++
	return fmt.Sprintf("%s/%d/%s", namespace, s.n, key)
}

// findCommitted returns the snapshot that the metadata store finds after AlreadyExists from
// Prepare: the committed one with that label on that parent, or "".
func (s *fixture) findCommitted(parent, id string) string {
	s.Helper()
	return s.findCommittedFor(s.ctx, parent, id)
}

// findCommittedFor is findCommitted for a caller in ctx.
func (s *fixture) findCommittedFor(ctx context.Context, parent, id string) string {
	s.Helper()
	found := ""
	err := s.sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if found == "" && info.Kind == snapshots.KindCommitted && info.Parent == parent && info.Labels[snapshots.LabelSnapshotRef] == id {
			found = info.Name
		}
		return nil
	}, fmt.Sprintf(`labels.%q==%s,parent==%q`, snapshots.LabelSnapshotRef, id, parent))
	require.NoError(s, err)
	return found
}

// pull pulls one layer into a namespace. It returns the layer's name in the snapshotter and
// whether it was unpacked.
func (s *fixture) pull(namespace, parent, id, content string) (name string, unpacked bool) {
	s.Helper()
	ctx := namespaces.WithNamespace(s.ctx, namespace)
	key := s.backend(namespace, "extract-1-abcd "+id)
	_, err := s.sn.Prepare(ctx, key, parent, ref(id))
	if errdefs.IsAlreadyExists(err) {
		name = s.findCommittedFor(ctx, parent, id)
		require.NotEmpty(s, name, "containerd finds no layer after AlreadyExists")
		return name, false
	}
	require.NoError(s, err)
	s.write(key, content)
	name = s.backend(namespace, id)
	s.commit(name, key, ref(id))
	return name, true
}
