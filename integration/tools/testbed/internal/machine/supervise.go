package machine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zfstpl/zfstpl/integration/tools/testbed/internal/wire"
)

const (
	tailLines = 30
	// hangLines has room for the stacks of what hangs.
	hangLines = 80
	// stopGrace is what the guest gets to end a command that took too long,
	// and to bring back its files.
	stopGrace = 15 * time.Second
	// offGrace is what it gets to power off.
	offGrace = time.Minute
)

// supervise waits for one of the ways in which a run can end.
func (s *session) supervise(ctx context.Context) (Result, error) {
	var result Result
	total := time.NewTimer(s.config.Timeout)
	defer total.Stop()
	boot := time.NewTimer(s.config.BootTimeout)
	defer boot.Stop()
	var kill <-chan time.Time
	for {
		select {
		case result.Greeting = <-s.receiver.hello:
			boot.Stop()
			result.Boot = time.Since(s.began)
			if s.config.KillAfter > 0 {
				kill = time.After(s.config.KillAfter)
			}
		case outcome := <-s.receiver.exit:
			// The line may have been the command's last word.
			select {
			case line := <-s.receiver.found:
				return s.cutPower(result, fmt.Sprintf("at the line %q", line))
			default:
				return s.finish(ctx, result, outcome)
			}
		case line := <-s.receiver.found:
			return s.cutPower(result, fmt.Sprintf("at the line %q", line))
		case <-kill:
			return s.cutPower(result, "after "+s.config.KillAfter.String())
		case <-boot.C:
			return result, s.fail(tailLines, fmt.Errorf("the guest did not boot in %s", s.config.BootTimeout))
		case <-total.C:
			return result, s.timeOut(ctx)
		case <-ctx.Done():
			return result, errors.Join(context.Cause(ctx), s.qemu.Kill())
		case <-s.qemu.Done():
			return s.ended(ctx, result)
		case <-s.receiver.done:
			return s.ended(ctx, result)
		}
	}
}

// ended is called when QEMU or the link is gone. That may be the regular end:
// what was received until then decides.
func (s *session) ended(ctx context.Context, result Result) (Result, error) {
	select {
	case <-s.receiver.done:
	case <-s.qemu.Done():
		s.drain()
	}
	select {
	case outcome := <-s.receiver.exit:
		return s.finish(ctx, result, outcome)
	default:
	}
	if errors.Is(s.receiver.err, errSilent) {
		return result, s.fail(hangLines, errSilent)
	}
	// The link closes a moment before QEMU ends, so wait for its reason.
	select {
	case <-s.qemu.Done():
	case <-time.After(time.Second):
		return result, s.fail(tailLines, fmt.Errorf("the link to the guest broke: %w", s.receiver.err))
	}
	reason := errors.New("the guest died: it powered off before the command ended")
	if _, why := s.console.Panic(); why != "" {
		reason = errors.New("the guest panicked: " + why)
	}
	if err := s.qemu.Wait(); err != nil {
		reason = fmt.Errorf("QEMU died: %w", err)
	}
	return result, s.fail(tailLines, reason)
}

// cutPower kills the guest as a power cut would.
func (s *session) cutPower(result Result, when string) (Result, error) {
	if err := s.qemu.Kill(); err != nil {
		return result, err
	}
	s.drain()
	s.config.Say("cut the power %s", when)
	result.Code, result.Killed, result.Total = StatusKilled, true, time.Since(s.began)
	return result, s.receiver.unpack.close(true)
}

// timeOut lets the guest say what hangs, and bring back what there is.
func (s *session) timeOut(ctx context.Context) error {
	reason := fmt.Errorf("%w (%s)", ErrTimeout, s.config.Timeout)
	s.receiver.stop <- struct{}{}
	select {
	case outcome := <-s.receiver.exit:
		s.notes(outcome)
	case <-time.After(stopGrace):
	case <-s.qemu.Done():
	case <-ctx.Done():
	}
	return s.fail(hangLines, reason)
}

// finish waits for the power-off after the command's end.
func (s *session) finish(ctx context.Context, result Result, outcome wire.Outcome) (Result, error) {
	select {
	case <-s.qemu.Done():
	case <-ctx.Done():
		return result, errors.Join(context.Cause(ctx), s.qemu.Kill())
	case <-time.After(offGrace):
		return result, s.fail(tailLines, fmt.Errorf("the guest did not power off in %s", offGrace))
	}
	s.drain()
	s.notes(outcome)
	s.sayIfFull()
	result.Code, result.Total = outcome.Code, time.Since(s.began)
	if err := s.receiver.unpack.close(false); err != nil {
		return result, err
	}
	if outcome.Err != "" && result.Boot > 0 {
		return result, errors.New(outcome.Err) // of the command: the console knows nothing of it
	}
	if outcome.Err != "" {
		return result, s.fail(tailLines, errors.New(outcome.Err))
	}
	if _, why := s.console.Panic(); why != "" {
		return result, s.fail(tailLines, errors.New("the guest panicked while it powered off"))
	}
	return result, nil
}

func (s *session) notes(outcome wire.Outcome) {
	for _, note := range outcome.Notes {
		s.config.Say("%s", note)
	}
}
