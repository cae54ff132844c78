package snapshotter

import "context"

// otherMountNamespace is the key of a context whose caller is in another mount
// namespace.
type otherMountNamespace struct{}

// WithOtherMountNamespace returns a context for a caller that runs in another mount
// namespace than this process: a mount of ours is not visible to it.
func WithOtherMountNamespace(ctx context.Context) context.Context {
	return context.WithValue(ctx, otherMountNamespace{}, true)
}

// inOtherMountNamespace reports whether the caller runs in another mount namespace.
// A context without a caller is this process's own.
func inOtherMountNamespace(ctx context.Context) bool {
	other, _ := ctx.Value(otherMountNamespace{}).(bool)
	return other
}

// isolatedNamespaces is the key of a context whose caller's namespaces share no templates.
type isolatedNamespaces struct{}

// WithOwnTemplates returns a context for a caller whose namespaces are isolated from each
// other: for its request Config.OwnTemplates is set.
func WithOwnTemplates(ctx context.Context) context.Context {
	return context.WithValue(ctx, isolatedNamespaces{}, true)
}

// ownTemplates reports whether namespaces share no templates: none of them do, or not
// those of this caller.
func (s *Snapshotter) ownTemplates(ctx context.Context) bool {
	own, _ := ctx.Value(isolatedNamespaces{}).(bool)
	return own || s.config.OwnTemplates
}
