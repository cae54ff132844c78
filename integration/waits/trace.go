package waits

import (
	"bufio"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The names of the probes' events are one of these and the function's name.
const (
	beginEvent = "begin_" // a function that waits for a txg is called
	blockEvent = "block_" // the thread blocks on a condition variable
	endEvent   = "end_"   // the function that waits returns
	stackEvent = "<stack trace>"
)

// event matches a line of a trace: the thread, and what happened. The name of a thread can
// have any characters. A return probe's line has no argument.
var event = regexp.MustCompile(`^ *.*-(\d+) +\[\d+\] \S+ +[\d.]+: (<stack trace>|(begin_|block_|end_)\w+: \(.*?\)(?: txg=(\d+))?)`)

// tracer is the state of a parse.
type tracer struct {
	calls []*Call
	open  map[int]*frame // by thread
	stack *Call          // the call whose stack the next lines are
}

// frame is the outermost call of a thread that has not returned, and how many calls are in it.
type frame struct {
	call  *Call
	depth int
}

// parseTrace returns the calls in a trace. On the releases of OpenZFS one of the functions
// calls the other, or has it inlined, so a call within a call of the same thread is not one
// more. A return without its call, which began before the trace, is ignored.
func parseTrace(text string) []Call {
	t := tracer{open: make(map[int]*frame)}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		t.line(lines.Text())
	}
	calls := make([]Call, 0, len(t.calls))
	for _, f := range t.open {
		f.call.Open = true
	}
	for _, c := range t.calls {
		calls = append(calls, *c)
	}
	return calls
}

func (t *tracer) line(line string) {
	if symbol, ok := strings.CutPrefix(line, " => "); ok {
		t.frame(strings.TrimSpace(symbol))
		return
	}
	t.stack = nil
	m := event.FindStringSubmatch(line)
	if m == nil {
		return
	}
	thread, _ := strconv.Atoi(m[1]) // digits
	txg, _ := strconv.ParseUint(m[4], 10, 64)
	t.event(thread, m[2], m[3], txg)
}

// frame adds a function to a stack. Those before the probed one are the probe's.
func (t *tracer) frame(symbol string) {
	if t.stack != nil && (t.stack.Stack != nil || slices.Contains(waiters, symbol)) {
		t.stack.Stack = append(t.stack.Stack, symbol)
	}
}

func (t *tracer) event(thread int, text, kind string, txg uint64) {
	f := t.open[thread]
	switch {
	case text == stackEvent:
		if f != nil && f.depth == 1 && f.call.Stack == nil {
			t.stack = f.call
		}
	case kind == beginEvent && f != nil:
		f.depth++
	case kind == beginEvent:
		f = &frame{call: &Call{Thread: thread, Txg: txg}, depth: 1}
		t.open[thread] = f
		t.calls = append(t.calls, f.call)
	case f == nil: // it began before the trace, or is another wait of the thread
	case kind == blockEvent:
		f.call.Waited = true
	case kind == endEvent:
		if f.depth--; f.depth == 0 {
			delete(t.open, thread)
		}
	}
}
