// The re-entry core: journal and outcomes in, commands and bodies out.
//
// The host calls start, resolve, finish, ack, cancel, evict; after each call it sends the commands in one frame, executes the
// bodies and interrupts the interrupts, and empties all three. Between calls the code is quiescent (H1c).

package stepwell

import (
	"slices"
	"strings"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// takeCommands are the messages to send in one frame.
func (r *reentry) takeCommands() []command {
	commands := r.outbox.commands
	r.outbox.commands = nil
	return commands
}

// start runs the code over its journal up to where it was, then on.
func (r *reentry) start() {
	r.state = stateExecuting
	early := r.journal.takePending()
	for _, outcome := range early {
		put(&r.seen, outcome.GetKey(), true)
		// Leave to run the function again is seen first of all: the code may end without asking for anything.
		if strings.HasPrefix(outcome.GetKey(), runKey) {
			r.see(outcome.GetKey())
		}
	}
	if code, err := r.fn.prepare(r.event, r.gathered); err != nil {
		r.endWith(err)
	} else {
		r.main = newFiber(r, nil, "", func(ctx Context) (err error) {
			r.output, err = code(ctx)
			return err
		})
		r.ready = append(r.ready, r.main)
		r.advance()
	}
	for _, outcome := range r.journal.outcomes {
		if r.state != stateExecuting {
			break
		}
		r.replay(outcome)
	}
	r.journal.outcomes = nil
	// Cancel comes last: had the code seen it before these, that would be durable and so in the journal (H1a).
	for _, outcome := range early {
		r.receive(outcome)
	}
	if r.cancelAsked != nil {
		r.deliverCancel(r.cancelAsked)
	}
	r.closeCall()
}

// resolve takes an outcome from the server; one sent twice counts once. Before start it waits for the journal.
func (r *reentry) resolve(outcome *stepwellv1.Outcome) {
	if r.seen[outcome.GetKey()] {
		return
	}
	put(&r.seen, outcome.GetKey(), true)
	r.received++
	if r.state == stateNew {
		r.journal.pending = append(r.journal.pending, outcome)
		r.journal.noteFunctionAttempt(outcome)
		return
	}
	r.receive(outcome)
	r.closeCall()
}

// finish takes the end of a body. An end that nobody asks for any more is ignored.
func (r *reentry) finish(key string, attempt uint32, value any, err error, startedMs, endedMs int64) {
	c := r.executing[key]
	if c == nil || c.attempt != attempt {
		return
	}
	delete(r.executing, key)
	var data []byte
	if err == nil {
		data, err = c.roundTrip(value, r.limits.GetResultBytes())
	}
	if err != nil {
		r.fail(c, err, startedMs, endedMs)
	} else {
		r.succeed(c, data, startedMs, endedMs)
	}
	r.closeCall()
}

// ack notes that everything up to the number is durable: bodies that waited for it begin.
func (r *reentry) ack(number uint64) {
	if number <= r.acked {
		return
	}
	r.acked = number
	r.outbox.acknowledge(number)
	r.closeCall()
}

// cancel gives up what the code waits for, and tells it why; it may clean up in further steps. However it ends, it is
// cancelled.
func (r *reentry) cancel(failure *stepwellv1.Failure) {
	why := cancelledBy(failure)
	if r.state == stateNew {
		r.cancelAsked = why
		return
	}
	r.deliverCancel(why)
	r.closeCall()
}

// evict is for a run that is no longer this worker's: it fences it, then unwinds its code silently (H3).
func (r *reentry) evict() {
	if r.state == stateFenced {
		return
	}
	r.state = stateFenced
	r.outbox.clear()
	r.bodies = nil
	r.letGo()
}

// settled tells whether the host may forget the run: it is fenced, or its end is durable.
func (r *reentry) settled() bool {
	return r.state == stateFenced || (r.state == stateEnded && r.acked >= r.endNumber)
}

// unacknowledged are the commands to send again after a reconnect, in order (H11).
func (r *reentry) unacknowledged() []command { return r.outbox.unacknowledged(r.state == stateParked) }

// advance runs the code until it is quiescent, then delivers what it asked for late, one at a time (H1b).
func (r *reentry) advance() {
	for {
		r.runReady()
		if r.state != stateExecuting {
			r.letGo()
			return
		}
		if r.main.done {
			r.end()
			return
		}
		if len(r.due) == 0 {
			return
		}
		key := r.due[0]
		r.due = r.due[1:]
		outcome := r.journal.take(key)
		if c := r.calls[key]; c != nil {
			if outcome.GetNumber() == 0 {
				r.see(key)
			}
			r.settle(c, outcome)
		}
	}
}

// runReady lets the fibers that are ready have their turns.
func (r *reentry) runReady() {
	for len(r.ready) > 0 && r.state == stateExecuting {
		f := r.ready[0]
		r.ready = rest(r.ready)
		if where, back := f.run(r.patience); !back {
			r.log.Error("a run's code blocked outside a step: the run fails, the goroutine is left behind", "run_id", r.runID, "blocks", where)
			r.endWith(outsideStepError("the function's code blocked outside a step, in %s: I/O, sleeps, and waits for other "+
				"goroutines belong in a step; branches wait for each other with a Group", where))
		}
	}
}

// see numbers an outcome made elsewhere. With another key open it was a choice: that must be durable (H1a).
func (r *reentry) see(key string) {
	r.number++
	r.outbox.deferred = append(r.outbox.deferred, &stepwellv1.DeliveredKey{Key: key, Number: r.number})
	if len(r.calls) > 1 || key == cancelKey {
		r.outbox.flush()
		r.watermark = r.number
	}
}

func (r *reentry) settle(c *call, outcome *stepwellv1.Outcome) {
	delete(r.calls, c.key)
	r.nowMs = max(r.nowMs, outcome.GetTimeMs())
	c.deliver(outcome)
	r.wake(c.fiber)
}

// replay delivers a recorded outcome; one that the code does not ask for is skipped, never awaited (H1b).
func (r *reentry) replay(outcome *stepwellv1.Outcome) {
	key := outcome.GetKey()
	if key == cancelKey {
		r.unwindCode(cancelledBy(outcome.GetFailure()), outcome.GetTimeMs())
		return
	}
	if outcome.GetKind() == kindRetry {
		base, attempt := splitAttempt(key)
		r.nowMs = max(r.nowMs, outcome.GetTimeMs())
		if c := r.calls[base]; c == nil {
			put(&r.journal.attempts, base, retried{attempt, outcome.GetFailure()})
		} else if c.kind == kindRun {
			c.attempt, c.lastError = attempt, outcome.GetFailure()
		}
		return
	}
	if c := r.calls[key]; c != nil {
		delete(r.journal.recorded, key)
		r.settle(c, outcome)
		r.advance()
	} else if !r.keys.given[key] {
		put(&r.journal.skipped, key, true)
	}
}

func (r *reentry) receive(outcome *stepwellv1.Outcome) {
	key := outcome.GetKey()
	switch c := r.calls[key]; {
	case r.state != stateExecuting && r.state != stateParked:
	case key == cancelKey:
		r.deliverCancel(cancelledBy(outcome.GetFailure()))
	case outcome.GetKind() == kindRetry:
		r.receiveRetry(outcome)
	case c != nil:
		if r.executing[key] != nil { // decided elsewhere, by an operator for example
			delete(r.executing, key)
			r.interrupts = append(r.interrupts, key)
		}
		r.waiting = slices.DeleteFunc(r.waiting, func(one *call) bool { return one == c })
		r.outbox.resolved(key)
		r.state = stateExecuting
		r.see(key)
		r.settle(c, outcome)
		r.advance()
	case !r.keys.given[key]:
		put(&r.journal.inbox, key, outcome)
	}
}

// receiveRetry takes leave for another attempt of a body: numbered like all outcomes, though the code does not see it.
func (r *reentry) receiveRetry(outcome *stepwellv1.Outcome) {
	base, attempt := splitAttempt(outcome.GetKey())
	r.nowMs = max(r.nowMs, outcome.GetTimeMs())
	if base == runKey {
		return
	}
	c := r.calls[base]
	if c == nil {
		if !r.keys.given[base] {
			r.see(outcome.GetKey())
			delete(r.journal.open, base)
			put(&r.journal.attempts, base, retried{attempt, outcome.GetFailure()})
		}
		return
	}
	if c.kind != kindRun || r.executing[base] != nil || (attempt <= c.attempt && c.openKey == "") {
		return
	}
	r.outbox.resolved(base)
	r.state = stateExecuting
	r.see(outcome.GetKey())
	c.attempt, c.lastError, c.openKey, c.need = attempt, outcome.GetFailure(), "", r.watermark
	r.waiting = append(r.waiting, c)
}

func (r *reentry) deliverCancel(why *CancelledError) {
	if r.cancelled || (r.state != stateExecuting && r.state != stateParked) {
		return
	}
	r.state = stateExecuting
	r.see(cancelKey)
	r.unwindCode(why, 0)
}

func (r *reentry) unwindCode(why *CancelledError, timeMs int64) {
	r.cancelled = true
	r.nowMs = max(r.nowMs, timeMs)
	r.main.giveUp(why)
	r.advance()
}

func (r *reentry) succeed(c *call, data []byte, startedMs, endedMs int64) {
	delete(r.calls, c.key)
	r.number++
	r.watermark = r.number
	r.outbox.emit(&stepwellv1.StepResult{
		RunId: r.runID, Turn: r.turn, Key: c.key, Number: r.number, Attempt: c.attempt,
		Output: &stepwellv1.Payload{Data: data}, StartedMs: startedMs, EndedMs: endedMs, InputHash: c.hash,
	})
	r.nowMs = max(r.nowMs, endedMs)
	r.wake(c.fiber)
	r.advance()
}

func (r *reentry) fail(c *call, err error, startedMs, endedMs int64) {
	failure := toFailure(err, r.limits.GetFailureBytes())
	// The server decides; this names the key under which it will answer, for the park.
	c.openKey = c.key
	if !failure.NonRetriable && c.attempt < c.policy.GetMaxAttempts() {
		c.openKey = retryKey(c.key, c.attempt+1)
	}
	r.outbox.emit(&stepwellv1.StepFailure{
		RunId: r.runID, Turn: r.turn, Key: c.key, Attempt: c.attempt, Failure: failure, Retry: c.policy,
		RetryAfterMs: retryAfterMs(err), StartedMs: startedMs, EndedMs: endedMs, InputHash: c.hash,
	})
}

// closeCall is the last act of every call by the host: bodies begin, or the run parks.
func (r *reentry) closeCall() {
	if r.state == stateExecuting {
		r.beginBodies()
		if len(r.executing) == 0 && len(r.waiting) == 0 {
			r.park()
		}
	}
	r.outbox.closeCall(r.number)
}

func (r *reentry) park() {
	tree := &stepwellv1.AwaitTree{Combine: stepwellv1.AwaitTree_COMBINE_ANY}
	for _, c := range inOrder(r.calls) {
		tree.Keys = append(tree.Keys, c.openKey)
	}
	if len(tree.Keys) == 0 {
		r.endWith(outsideStepError("the function's code waits, and no step is open that could let it go on"))
		r.letGo()
		return
	}
	r.state = stateParked
	r.outbox.emit(&stepwellv1.Park{RunId: r.runID, Turn: r.turn, Tree: tree, Received: r.received})
}

func (r *reentry) beginBodies() {
	held := r.waiting[:0]
	for _, c := range r.waiting {
		if c.need > r.acked {
			held = append(held, c)
			continue
		}
		put(&r.executing, c.key, c)
		r.bodies = append(r.bodies, &bodyCall{
			runID: r.runID, key: c.key, attempt: c.attempt, lastError: c.lastError, args: c.args, fn: c.body, timeout: c.timeout,
			trace: r.trace,
		})
	}
	clear(r.waiting[len(held):])
	r.waiting = held
}

// letGo stops what still runs of a run that ended or was fenced.
func (r *reentry) letGo() {
	for _, c := range inOrder(r.executing) {
		r.interrupts = append(r.interrupts, c.key)
	}
	r.executing, r.calls = nil, nil
	r.waiting, r.due, r.ready = nil, nil, nil
	if r.main != nil {
		r.unwind(r.main)
		r.main, r.output = nil, nil
	}
}

// unwind ends what is left of the code, branches first; nothing that it does reaches the server.
func (r *reentry) unwind(f *fiber) {
	for _, child := range f.children {
		r.unwind(child)
	}
	if f.done || f.phase.Load() == lost {
		return
	}
	if where, back := f.run(r.patience); !back {
		r.log.Warn("a run's code cannot be unwound", "run_id", r.runID, "blocks", where)
	}
}
