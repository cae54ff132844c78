package errkind

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/stretchr/testify/assert"

	"github.com/zfstpl/zfstpl/snapshotter/zfs"
)

func TestOfMapsEveryKind(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ err, want error }{
		{nil, nil},
		{errors.New("unknown"), nil},
		{fmt.Errorf("x: %w", &zfs.Error{Op: "clone", Dataset: "tank/x", Kind: zfs.ErrNoSpace}), errdefs.ErrResourceExhausted},
		{&zfs.Error{Kind: zfs.ErrQuota}, errdefs.ErrResourceExhausted},
		{&zfs.Error{Kind: zfs.ErrHasClones}, errdefs.ErrFailedPrecondition},
		{&zfs.Error{Kind: zfs.ErrSuspended}, errdefs.ErrUnavailable},
		{&zfs.Error{Kind: zfs.ErrExists}, errdefs.ErrInternal}, // AlreadyExists is for records only
		{&zfs.Error{Kind: zfs.ErrReadOnly}, errdefs.ErrFailedPrecondition},
		{&zfs.Error{}, nil},
	} {
		assert.Equal(t, c.want, Of(c.err), "%v", c.err)
	}
}
