package crash

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zfstpl/zfstpl/integration/model"
)

// round kills the daemon once, and again at a point of its next start if again is not 0. It
// checks what is left.
func (c *Run) round(t *testing.T, k kill, again int) {
	f := newFixture(t, c.rig)
	defer f.unmount()
	defer func() {
		if t.Failed() {
			t.Logf("killed at %s, then at %d\n%s", k, again, f.describe())
		}
	}()
	f.setUp(c.Case)
	f.clearPoints(t)
	returned := c.interrupt(f, k)
	if k.point == 0 && testing.Short() {
		f.ensureRunning(t)
		f.tearDown(t) // this round only records
		return
	}
	c.restart(f, again)
	happened := c.requireBetweenSteps(f, returned)
	c.requireRepeatable(f, happened)
	f.tearDown(t)
}

// interrupt performs the steps until the daemon is killed, and returns how many of them
// returned. If k has no point, interrupt records what later rounds expect, and the daemon is
// killed after the last step.
func (c *Run) interrupt(f *Fixture, k kill) (returned int) {
	f.t.Helper()
	if k.point == 0 {
		c.record(f)
		return len(c.steps)
	}
	require.Empty(f.t, c.expected[0].state.differences(f.before), "the state before the operation")
	f.orderKill(f.t, k)
	for returned < len(c.steps) && f.failed == nil {
		if f.failed = c.steps[returned](f); f.failed == nil {
			returned++
		}
	}
	missed := c.varies && returned == len(c.steps) && len(f.points(f.t)) < k.point
	if missed {
		c.missed++ // this time there is no such point: the kill is after the last one
		f.kill()
	}
	err := f.d.Wait()
	if err == nil && returned == len(c.steps) && (k.delay > 0 || missed) {
		f.disconnect() // the last step ends the daemon, which was faster than the kill
	} else {
		f.requireKilled(f.t)
	}
	f.cancelOrder(f.t)
	return returned
}

// record performs the steps without a kill and records the points and the states.
func (c *Run) record(f *Fixture) {
	f.t.Helper()
	expect := func(s *state) { c.expected = append(c.expected, expected{s, f.model.Clone()}) }
	c.expected = nil
	expect(f.before)
	for _, step := range c.steps {
		f.must(step(f))
		if f.d.IsRunning() {
			expect(f.readExpected())
		}
	}
	c.points = f.points(f.t)
	if f.d.IsRunning() {
		if !testing.Short() {
			f.kill()
			f.requireKilled(f.t)
		}
		return
	}
	// The last step has ended the daemon. The next start shows its effect.
	f.ensureRunning(f.t)
	expect(f.readExpected())
}

// restart starts the daemon. If again is not 0, the daemon is killed at that point of its
// start and started once more, unless the start has fewer points.
func (c *Run) restart(f *Fixture, again int) {
	f.t.Helper()
	c.kills++
	f.clearPoints(f.t)
	if again > 0 {
		f.orderKill(f.t, kill{point: again})
		if !f.launch(f.t) {
			c.inRecovery++
			f.requireKilled(f.t)
			f.clearPoints(f.t)
		}
	}
	f.ensureRunning(f.t)
	c.recovery = f.points(f.t)
	if len(groupByState(c.recovery)) > 1 {
		c.recovered++
	}
}

// requireBetweenSteps asserts that a number of steps has happened, that none has happened in
// part and that those that returned have happened. It returns the number and sets the model.
func (c *Run) requireBetweenSteps(f *Fixture, returned int) (happened int) {
	f.t.Helper()
	got := f.read()
	if c.mayLose && returned < len(c.steps) {
		returned = 0
	}
	for happened = returned; happened < len(c.expected); happened++ {
		if len(c.expected[happened].state.differences(got)) == 0 {
			break
		}
	}
	if happened == len(c.expected) {
		require.Empty(f.t, c.expected[returned].state.differences(got), "the state is neither that before a step nor that after it; these are the differences to before")
	}
	f.model = c.expected[happened].model.Clone()
	for name, source := range f.before.sources {
		if now, ok := got.sources[name]; ok && (name != c.recreated || happened < len(c.steps)) {
			require.Equal(f.t, source, now, "the source of %q, which still exists", name)
		}
	}
	if happened == len(c.steps) {
		f.requireContent()
	}
	if c.check != nil {
		c.check(f)
	}
	return happened
}

// requireRepeatable performs the steps that have not happened, or all again if all have. It
// checks the invariants before or after that.
func (c *Run) requireRepeatable(f *Fixture, happened int) {
	f.t.Helper()
	checkFirst := !c.needsCached && c.r.IntN(2) == 0
	if checkFirst {
		f.cleanUpAndCheck()
		require.Empty(f.t, c.expected[happened].state.differences(f.read()), "a cleanup changes nothing that clients see")
	}
	c.repeat(f, happened)
	f.ensureRunning(f.t)
	f.removeUnknown()
	got := f.readExpected()
	require.Empty(f.t, c.expected[len(c.steps)].state.differences(got), "after the operation was repeated")
	if happened < len(c.steps) {
		f.requireContent()
	}
	if !checkFirst {
		f.cleanUpAndCheck()
	}
}

func (c *Run) repeat(f *Fixture, happened int) {
	f.t.Helper()
	steps := c.steps[happened:]
	if len(steps) == 0 {
		steps = c.steps
	}
	var err error
	for _, step := range steps {
		err = errors.Join(err, step(f))
	}
	if happened == len(c.steps) && c.again != nil {
		require.ErrorIs(f.t, err, c.again)
		return
	}
	require.NoError(f.t, err, "%d of %d steps had happened", happened, len(c.steps))
}

// expected is what the daemon shows and what the model has before the first step or after a
// step.
type expected struct {
	state *state
	model *model.Model
}
