package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/zfstpl/zfstpl/plugin"
)

const (
	// askTime bounds how long a call waits for containerd to report who it is.
	askTimeout = 2 * time.Second
	// askAgain is how long a containerd that has not replied in that time is not asked
	// again: it has many calls for us under way.
	askBackoff = 5 * time.Second
)

// guard lets one containerd use the snapshots: the process that serves an address. A
// second one would take the first one's snapshots for garbage. What counts is the
// process and not a name that it gives itself, so a containerd with a new database, and
// one that was restarted, is as good as the one before.
type guard struct {
	dataset string
	address string
	ask     func(ctx context.Context, address string) (plugin.Containerd, error)

	mu       sync.Mutex
	owner    *caller // the containerd that was asked last; its process may have ended
	isolated bool    // its content_sharing_policy
	askErr   error   // why it is not known who serves the address
	askAfter time.Time
	warned   bool // that nothing is removed meanwhile

	rejected once
}

// newGuard returns the guard of a base for the containerd at an address, or nil where
// none is configured.
func newGuard(dataset, address string) *guard {
	if address == "" {
		return nil
	}
	return &guard{dataset: dataset, address: address, ask: plugin.AskContainerd}
}

// admit returns whether the caller's namespaces are isolated from each other, or why the
// caller may not do what it asks for. While nothing is known of the containerd at the
// address all is admitted but what takes something away: containerd collects garbage
// before it listens, and must not be kept from starting.
//
//	PermissionDenied  the caller is not the containerd at the address
//	Unavailable       that is not known, and something would be removed
func (g *guard) admit(ctx context.Context, from *caller, removes bool) (isolated bool, err error) {
	if isolated, ok := g.isOwner(from); ok {
		return isolated, nil
	}
	server, err := g.find(ctx)
	if err != nil {
		return false, g.refuseRemovals(ctx, err, removes)
	}
	if !from.is(server) {
		return false, g.reject(ctx, from, server)
	}
	g.accept(ctx, from, server.Isolated)
	return server.Isolated, nil
}

// unknown returns why a caller may not do what it asks for while it is not known which
// process is containerd, or nil.
func (g *guard) refuseRemovals(ctx context.Context, why error, removes bool) error {
	if ctx.Err() != nil || !removes {
		return ctx.Err()
	}
	g.warn(ctx, why)
	return fmt.Errorf("nothing of %s is removed while it is not known which process is containerd: set containerd_address to the socket of the containerd that uses this daemon: %s: %w",
		g.dataset, why.Error(), errdefs.ErrUnavailable)
}

// knows reports whether a caller is the containerd that was found last. Both are held on
// to, and of two processes that live only one has a number.
func (g *guard) isOwner(from *caller) (isolated, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.owner == nil || from.pid != g.owner.pid || !g.owner.alive() || !from.alive() {
		return false, false
	}
	return g.isolated, true
}

// find returns who serves the address, in a bounded time.
func (g *guard) find(ctx context.Context) (plugin.Containerd, error) {
	g.mu.Lock()
	askErr, askAfter := g.askErr, g.askAfter
	g.mu.Unlock()
	if askErr != nil && time.Now().Before(askAfter) {
		return plugin.Containerd{}, askErr
	}
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	server, err := g.ask(asking, g.address)
	if err == nil && server.PID == 0 {
		err = fmt.Errorf("containerd_address %s: what serves there does not report its process", g.address)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.askErr = nil
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		g.askErr, g.askAfter = err, time.Now().Add(askBackoff)
	}
	return server, err
}

// accept remembers the containerd that was found.
func (g *guard) accept(ctx context.Context, from *caller, isolated bool) {
	g.mu.Lock()
	known := g.owner != nil && g.owner.pid == from.pid && g.owner.alive()
	g.owner, g.isolated, g.warned = from, isolated, false
	g.mu.Unlock()
	if known {
		return
	}
	entry := log.G(ctx).WithField("process", from.pid).WithField("program", from.name).WithField("containerd_address", g.address)
	entry.Info("serving containerd")
	if isolated {
		entry.Info("containerd's content_sharing_policy is isolated: its namespaces share no templates, as with share_layers_across_namespaces = false")
	}
}

// reject returns why a caller is refused, and logs that once of each process.
func (g *guard) reject(ctx context.Context, from *caller, server plugin.Containerd) error {
	err := fmt.Errorf("%s may not use the snapshots of %s: they are those of %s, the containerd that serves containerd_address %s: %w",
		from, g.dataset, serverName(server), g.address, errdefs.ErrPermissionDenied)
	if g.rejected.first(from) {
		log.G(ctx).WithError(err).Warn("a caller is refused")
	}
	return err
}

// warn logs once that nothing is removed.
func (g *guard) warn(ctx context.Context, err error) {
	g.mu.Lock()
	again := g.warned
	g.warned = true
	g.mu.Unlock()
	if !again {
		log.G(ctx).WithError(err).WithField("containerd_address", g.address).
			Warn("nothing is removed while it is not known which process is containerd")
	}
}

// is reports whether a caller is the process that a containerd reports to be.
func (c *caller) is(server plugin.Containerd) bool {
	return c.pid != 0 && c.pidns != 0 && c.pidns == server.PIDNamespace && uint64(c.innerPID) == server.PID && c.alive()
}

// serverName returns what a message says of a containerd.
func serverName(server plugin.Containerd) string {
	if own, _ := pidNamespace("/proc/self"); own != server.PIDNamespace {
		return fmt.Sprintf("process %d of PID namespace %d", server.PID, server.PIDNamespace)
	}
	return fmt.Sprintf("process %d (%s)", server.PID, programName(fmt.Sprintf("/proc/%d", server.PID)))
}
