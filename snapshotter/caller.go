package snapshotter

import "context"

// otherMountNamespace is the context key of WithOtherMountNamespace.
type otherMountNamespace struct{}

// WithOtherMountNamespace returns a context for a caller in another mount namespace than
// this process. A held mount is not visible to such a caller unless the mount propagates to
// that namespace. root is a path to the caller's root directory, such as /proc/PID/root, or
// "" if there is none.
func WithOtherMountNamespace(ctx context.Context, root string) context.Context {
	return context.WithValue(ctx, otherMountNamespace{}, root)
}

// inOtherMountNamespace reports whether the caller is in another mount namespace, and
// returns the path to the caller's root directory. It reports false if the context says
// nothing about that.
func inOtherMountNamespace(ctx context.Context) (root string, other bool) {
	root, other = ctx.Value(otherMountNamespace{}).(string)
	return root, other
}

// isolatedNamespaces is the context key of WithOwnTemplates.
type isolatedNamespaces struct{}

// WithOwnTemplates returns a context for a caller whose namespaces are isolated from each
// other: its requests run as if Config.OwnTemplates were set.
func WithOwnTemplates(ctx context.Context) context.Context {
	return context.WithValue(ctx, isolatedNamespaces{}, true)
}

// ownTemplates reports whether each namespace has its own templates, by configuration or for
// the caller of ctx.
func (s *Snapshotter) ownTemplates(ctx context.Context) bool {
	own, _ := ctx.Value(isolatedNamespaces{}).(bool)
	return own || s.config.OwnTemplates
}
