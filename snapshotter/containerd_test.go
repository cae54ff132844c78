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

// What containerd does with a snapshotter, as its unpacker and its metadata
// store do it.

// chain is a chain ID made of one hexadecimal digit.
func chain(digit string) string { return "sha256:" + strings.Repeat(digit, 64) }

func label(key, value string) snapshots.Opt {
	return snapshots.WithLabels(map[string]string{key: value})
}

// ref is the label by which an unpacker asks for a layer.
func ref(id string) snapshots.Opt { return label(snapshots.LabelSnapshotRef, id) }

// backend is the name under which the metadata store knows a client's key.
func (s *fixture) backend(namespace, key string) string {
	s.n++
	return fmt.Sprintf("%s/%d/%s", namespace, s.n, key)
}

// adopted is what the metadata store takes an AlreadyExists from Prepare for:
// the committed snapshot with that label on that parent, or "".
func (s *fixture) findCommitted(parent, id string) string {
	s.Helper()
	return s.findCommittedFor(s.ctx, parent, id)
}

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

// pull unpacks one layer into a namespace and answers its name in the backend,
// and whether it had to be unpacked at all.
func (s *fixture) pull(namespace, parent, id, content string) (name string, unpacked bool) {
	s.Helper()
	ctx := namespaces.WithNamespace(s.ctx, namespace)
	key := s.backend(namespace, "extract-1-abcd "+id)
	_, err := s.sn.Prepare(ctx, key, parent, ref(id))
	if errdefs.IsAlreadyExists(err) {
		name = s.findCommittedFor(ctx, parent, id)
		require.NotEmpty(s, name, "AlreadyExists, and containerd finds no layer")
		return name, false
	}
	require.NoError(s, err)
	s.write(key, content)
	name = s.backend(namespace, id)
	s.commit(name, key, ref(id))
	return name, true
}
