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
