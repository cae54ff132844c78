package integration

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/harness"
)

// round sets the scene, lets the daemon die during the operation and, where
// again is not 0, at that point of its next start, and looks at what is left.
func (c *crashRun) round(t *testing.T, b crashBlow, again int) {
	s := newCrashScene(t, c.rig)
	defer s.release()
	defer func() {
		if t.Failed() {
			t.Logf("died %s, then at %d\n%s", b, again, s.describe())
		}
	}()
	s.stage(c.crashCase)
	s.forget(t)
	returned := c.die(s, b)
	if b.point == 0 && testing.Short() {
		s.up(t)
		s.clear(t) // all that was wanted were the points and states
		return
	}
	c.recover(s, again)
	happened := c.requireOneOf(s, returned)
	c.requireRepeatable(s, happened)
	s.clear(t)
}

// die does the steps until the daemon is dead, and returns how many it said
// were done. With no point to die at it dies behind the last; what was seen
// then is what other rounds are held against.
func (c *crashRun) die(s *crashScene, b crashBlow) (returned int) {
	s.t.Helper()
	if b.point == 0 {
		c.record(s)
		return len(c.do)
	}
	require.Equal(s.t, c.states[0], s.before, "the scene")
	s.condemn(s.t, b)
	for returned < len(c.do) && s.failed == nil {
		if s.failed = c.do[returned](s); s.failed == nil {
			returned++
		}
	}
	missed := c.uneven && returned == len(c.do) && len(s.points(s.t)) < b.point
	if missed {
		c.missed++ // there is no such point this time: it dies behind the last
		s.strikeDown()
	}
	ended := s.d.Wait()
	if ended == nil && returned == len(c.do) && (b.delay > 0 || missed) {
		s.hangUp() // it was to end, and did so before its time
	} else {
		s.requireKilled(s.t)
	}
	s.pardon(s.t)
	return returned
}

// record does the steps with nothing in their way and notes points and states.
func (c *crashRun) record(s *crashScene) {
	s.t.Helper()
	c.states = []crashState{s.before}
	for _, step := range c.do {
		s.must(step(s))
		if s.running() {
			state, _ := s.read()
			c.states = append(c.states, state)
		}
	}
	c.points = s.points(s.t)
	if s.running() {
		if !testing.Short() {
			s.kill(s.t)
		}
		return
	}
	// It has ended by itself: what it left is seen at the next start.
	s.up(s.t)
	state, _ := s.read()
	c.states = append(c.states, state)
}

// recover starts the daemon, where again is not 0 to die once more at that point
// of its start. One that has fewer points lives.
func (c *crashRun) recover(s *crashScene, again int) {
	s.t.Helper()
	c.deaths++
	s.forget(s.t)
	if again > 0 {
		s.condemn(s.t, crashBlow{point: again})
		if !s.launch(s.t) {
			c.inRecovery++
			s.requireKilled(s.t)
			s.forget(s.t)
		}
	}
	s.up(s.t)
	c.recovery = s.points(s.t)
	if len(alike(c.recovery)) > 1 {
		c.worked++
	}
}

// requireOneOf wants some number of the steps to have happened, none of them in
// part, and returns how many. One that was returned has.
func (c *crashRun) requireOneOf(s *crashScene, returned int) (happened int) {
	s.t.Helper()
	got, sources := s.read()
	if c.lazy && returned < len(c.do) {
		returned = 0
	}
	for happened = returned; happened < len(c.states); happened++ {
		if reflect.DeepEqual(c.states[happened], got) {
			break
		}
	}
	if happened == len(c.states) {
		require.Equal(s.t, c.states[returned], got, "neither the state before a step nor the one after it; this is the difference to before")
	}
	for name, source := range s.sources {
		if now, ok := sources[name]; ok && (name != c.renewed || happened < len(c.do)) {
			require.Equal(s.t, source, now, "what is mounted for %q, which is still there", name)
		}
	}
	if happened == len(c.do) {
		s.requireFiles(got)
	}
	if c.check != nil {
		c.check(s, got)
	}
	return happened
}

// requireRepeatable does what did not happen, or all of it again where it did.
// The invariants are looked at before or after that.
func (c *crashRun) requireRepeatable(s *crashScene, happened int) {
	s.t.Helper()
	tidy := !c.cached && c.r.IntN(2) == 0
	if tidy {
		s.tidy()
		got, _ := s.read()
		require.Equal(s.t, c.states[happened], got, "a cleanup changes nothing that can be seen")
	}
	c.repeat(s, happened)
	s.up(s.t)
	s.collectUnknown()
	got, _ := s.read()
	require.Equal(s.t, c.states[len(c.do)], got, "after the operation was done again")
	if happened < len(c.do) {
		s.requireFiles(got)
	}
	if !tidy {
		s.tidy()
	}
}

func (c *crashRun) repeat(s *crashScene, happened int) {
	s.t.Helper()
	steps := c.do[happened:]
	if len(steps) == 0 {
		steps = c.do
	}
	var err error
	for _, step := range steps {
		err = errors.Join(err, step(s))
	}
	if happened == len(c.do) && c.again != nil {
		require.ErrorIs(s.t, err, c.again)
		return
	}
	require.NoError(s.t, err, "%d of %d steps had happened", happened, len(c.do))
}

// collectUnknown removes the snapshots whose keys were given once more, as containerd's
// garbage collection does.
func (s *crashScene) collectUnknown() {
	s.t.Helper()
	for name := range harness.Everything(s.t, s.sn) {
		if strings.Contains(name, "-unknown-to-containerd-") {
			s.must(s.sn.Remove(s.ctx, name))
		}
	}
}

// describe shows the pool and the last words of the daemon.
func (s *crashScene) describe() string {
	var b strings.Builder
	list, err := s.base.Client.List(s.ctx, s.base.String())
	for _, d := range list {
		fmt.Fprintf(&b, "%s origin %s txg %d %q\n", strings.TrimPrefix(d.Name, s.base.String()), strings.TrimPrefix(d.Origin, s.base.String()), d.CreateTXG, d.Snapshots)
		for prop, value := range d.Props {
			fmt.Fprintf(&b, "    %s = %.200s\n", prop, value)
		}
	}
	fmt.Fprintf(&b, "listing: %v; the step that failed: %v\n", err, s.failed)
	for _, p := range s.points(s.t) {
		fmt.Fprintln(&b, p.at.Format("05.000000"), p.what)
	}
	fmt.Fprintf(&b, "%s", s.d.Log)
	return b.String()
}
