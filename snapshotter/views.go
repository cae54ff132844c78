package snapshotter

import (
	"context"

	"github.com/zfstpl/zfstpl/snapshotter/internal/index"
)

// startViewMount mounts a template in a goroutine. done waits for it. The caller has pinned
// the template.
func (s *Snapshotter) startViewMount(ctx context.Context, t *index.Template) (done func()) {
	mounted := make(chan struct{})
	go func() {
		defer close(mounted)
		s.mounts.AttachView(context.WithoutCancel(ctx), t.Dataset(), t.Snapshot())
	}()
	return func() { <-mounted }
}

// mountViews mounts the templates of the views that recovery found.
func (s *Snapshotter) mountViews(ctx context.Context) {
	for _, t := range s.index.Viewed() {
		s.mounts.AttachView(ctx, t.Dataset(), t.Snapshot())
	}
}
