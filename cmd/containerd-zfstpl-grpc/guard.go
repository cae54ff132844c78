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
	// askTimeout limits how long a call waits for containerd to report its process.
	askTimeout = 2 * time.Second
	// askBackoff is the pause before a containerd that did not reply in that time is
	// asked again: many of its calls wait for the daemon meanwhile.
	askBackoff = 5 * time.Second
)

// guard lets one containerd use the snapshots: the process that serves an address. A
// second one would take the first one's snapshots for garbage. The process counts and not
// a name that it reports, so a containerd that was restarted, or has a new database, is
// admitted too.
type guard struct {
	dataset string
	address string
	ask     func(ctx context.Context, address string) (plugin.Containerd, error)

	mu       sync.Mutex
	owner    *caller // the containerd that was asked last; its process may have ended
	isolated bool    // its content_sharing_policy
	askErr   error   // why the process at the address is not known
	askAfter time.Time
	warned   bool // that removals are refused was logged

	rejected once
}

// newGuard returns the guard of a base for the containerd at an address, or nil if the
// address is empty.
func newGuard(dataset, address string) *guard {
	if address == "" {
		return nil
	}
	return &guard{dataset: dataset, address: address, ask: plugin.AskContainerd}
}

// admit reports whether the caller's namespaces are isolated from each other, or returns
// an error for a caller that it refuses. While the process at the address is not known it
// admits everything but removals: containerd collects garbage before it listens, and must
// be able to start.
//
//	PermissionDenied  the caller is not the containerd at the address
//	Unavailable       the process at the address is not known, and removes is true
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

// refuseRemovals returns an error for a request that removes snapshots while the process
// of containerd is not known, and nil for any other request. It logs the first refusal.
func (g *guard) refuseRemovals(ctx context.Context, why error, removes bool) error {
	if ctx.Err() != nil || !removes {
		return ctx.Err()
	}
	g.mu.Lock()
	warned := g.warned
	g.warned = true
	g.mu.Unlock()
	if !warned {
		log.G(ctx).WithError(why).WithField("containerd_address", g.address).
			Warn("refusing removals from an unknown containerd")
	}
	return fmt.Errorf("refusing to remove snapshots of %s from an unknown containerd: set containerd_address to the socket of the containerd that uses this daemon: %s: %w",
		g.dataset, why.Error(), errdefs.ErrUnavailable)
}

// isOwner reports whether a caller is the containerd that was found last, and whether its
// namespaces are isolated. Two living processes never have the same PID.
func (g *guard) isOwner(from *caller) (isolated, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.owner == nil || from.pid != g.owner.pid || !g.owner.alive() {
		return false, false
	}
	return g.isolated, from == g.owner || from.alive()
}

// find returns the containerd that serves the address. It waits at most askTimeout.
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
		err = fmt.Errorf("containerd_address %s: the server does not report its process", g.address)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.askErr = nil
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		g.askErr, g.askAfter = err, time.Now().Add(askBackoff)
	}
	return server, err
}

// reach returns an error if no containerd at the address replies within askTimeout.
func (g *guard) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := g.ask(ctx, g.address)
	return err
}

// accept stores the containerd that was found, and logs it.
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
		entry.WithField("reason", "content_sharing_policy is isolated").Info("namespaces share no layers")
	}
}

// reject returns the error for a caller that is refused, and logs it once for each
// process.
func (g *guard) reject(ctx context.Context, from *caller, server plugin.Containerd) error {
	err := fmt.Errorf("%s may not use the snapshots of %s: they belong to %s, the containerd that serves containerd_address %s: %w",
		from, g.dataset, serverName(server), g.address, errdefs.ErrPermissionDenied)
	if g.rejected.first(from) {
		log.G(ctx).WithError(err).Warn("refused caller")
	}
	return err
}

// is reports whether a caller is the process that a containerd reports.
func (c *caller) is(server plugin.Containerd) bool {
	return c.pid != 0 && c.pidns != 0 && c.pidns == server.PIDNamespace && uint64(c.innerPID) == server.PID && c.alive()
}

// serverName returns a containerd as messages name it.
func serverName(server plugin.Containerd) string {
	if own, _ := pidNamespace("/proc/self"); own != server.PIDNamespace {
		return fmt.Sprintf("process %d of PID namespace %d", server.PID, server.PIDNamespace)
	}
	return fmt.Sprintf("process %d (%s)", server.PID, programName(fmt.Sprintf("/proc/%d", server.PID)))
}
