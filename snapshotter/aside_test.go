package snapshotter

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A containerd with a new database uses a key that its old database used. Prepare and View
// succeed, and the old snapshot keeps its content until containerd's garbage collection.
func TestPrepareRenamesSnapshotUnknownToContainerd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newFixture(t)
		s.layer("default/2/image", "", "i;")
		s.prepare("default/7/job", "default/2/image")
		s.write("default/7/job", "old;")
		s.view("default/8/look", "default/2/image")

		s.prepare("default/7/job", "default/2/image")
		s.view("default/8/look", "default/2/image")
		assert.Equal(t, "i;", s.visible()["default/7/job"].Content)
		s.requireRecoverable()
		s.crash()
		old := 0
		for name, seen := range s.visible() {
			if !strings.Contains(name, "-unknown-to-containerd-") {
				continue
			}
			old++
			if strings.HasPrefix(name, "default/7/job-") {
				assert.Equal(t, "i;old;", seen.Content, "the old snapshot keeps its content")
			}
			s.remove(name)
		}
		assert.Equal(t, 2, old)
		s.remove("default/7/job", "default/8/look")
		s.requireInvariants()
	})
}

// Prepare and View rename no snapshot whose key is without containerd's number or that is
// committed.
func TestPrepareOfOtherExistingKeyIsRefused(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.prepare("web", "")
	s.layer("default/2/image", "", "i;")
	for what, key := range map[string]string{"without containerd's number": "web", "of a committed snapshot": "default/2/image"} {
		_, err := s.sn.Prepare(s.ctx, key, "")
		require.ErrorIs(t, err, errdefs.ErrAlreadyExists, what)
		_, err = s.sn.View(s.ctx, key, "")
		require.ErrorIs(t, err, errdefs.ErrAlreadyExists, what)
	}
	s.requireInvariants()
}
