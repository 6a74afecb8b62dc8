// The inside of the test kit: what a server would do with the commands of a run.

package stepwell

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// move lets runs go on until none can without the clock or an event.
func (e *TestEnv) move() {
	if e.moving {
		return // a run that moves has sent an event
	}
	e.moving = true
	defer func() { e.moving = false }()
	for moved := true; moved; {
		moved = false
		for at := 0; at < len(e.runs); at++ {
			moved = e.runs[at].step() || moved
		}
	}
}

// step lets a run go on by one input; false if there is none.
func (r *TestRun) step() bool {
	next := slices.IndexFunc(r.unseen, func(one *testOutcome) bool { return !one.sent })
	switch {
	case r.status.Ended() || r.status == StatusPaused:
		return false
	case r.status == StatusQueued || (r.core != nil && r.env.crash()):
		r.enter()
	case len(r.queue) > 0:
		r.execute()
	case next < 0:
		return false
	case r.core == nil || (r.env.Reenter && r.core.state == stateParked):
		r.enter()
	default:
		r.unseen[next].sent = true
		r.core.resolve(proto.CloneOf(r.unseen[next].message))
	}
	r.take()
	return true
}

// enter runs the code over the journal, from its beginning.
func (r *TestRun) enter() {
	r.leave()
	r.turn++
	assign := &stepwellv1.Assign{
		RunId: r.ID, Turn: r.turn, FunctionId: r.FunctionID, Event: r.event, Events: r.gathered, CreatedMs: r.createdMs,
		Cancelled: r.cancelled != nil && !slices.Contains(r.Keys(), cancelKey), CancelFailure: r.cancelled,
	}
	if r.turn == 1 && r.fn.timeoutMs > 0 {
		r.deadline = r.env.nowMs + int64(r.fn.timeoutMs)
	}
	for _, outcome := range r.journal {
		assign.Journal = append(assign.Journal, proto.CloneOf(outcome))
	}
	for _, one := range r.unseen {
		one.sent = true
		assign.Journal = append(assign.Journal, proto.CloneOf(one.message))
	}
	for _, one := range r.open {
		assign.Open = append(assign.Open, &stepwellv1.OpenKey{Key: one.key, Kind: one.kind, Target: one.target, InputHash: one.hash})
	}
	r.status = StatusRunning
	r.core = newReentry(r.fn, assign, r.env.limits, r.env.bodies.base, slog.Default())
	r.core.start()
}

// leave forgets the code that runs.
func (r *TestRun) leave() {
	if r.core != nil {
		r.core.evict()
	}
	r.core, r.queue = nil, nil
}

// execute executes the next body.
func (r *TestRun) execute() {
	body := r.queue[0]
	r.queue = r.queue[1:]
	if mock := r.env.mocks[body.key]; mock != nil {
		body.fn = mock
	}
	ended := make(chan *attempt, 1)
	r.env.bodies.start(body, func(a *attempt) { ended <- a })
	a := <-ended
	r.core.finish(body.key, body.attempt, a.value, a.err, a.startedMs, a.endedMs)
}

// take does what the code asked for: all that one call of the core left behind, until nothing is left.
func (r *TestRun) take() {
	for r.core != nil {
		core := r.core
		r.queue = slices.DeleteFunc(append(r.queue, core.bodies...), func(body *bodyCall) bool {
			return slices.Contains(core.interrupts, body.key)
		})
		core.bodies, core.interrupts = nil, nil
		commands := core.takeCommands()
		var number uint64
		for _, command := range commands {
			number = max(number, r.apply(command))
		}
		if r.core == core && number > 0 {
			core.ack(number)
		}
		if len(commands) == 0 {
			break
		}
	}
	if r.core != nil && r.core.state == stateExecuting {
		r.status = StatusRunning
	}
}

// apply does what one command asks for, and answers the number that is now durable.
func (r *TestRun) apply(command command) uint64 {
	switch m := command.(type) {
	case *stepwellv1.StepResult:
		r.journal = append(r.journal, &stepwellv1.Outcome{
			Key: m.Key, Number: m.Number, Kind: kindRun, Attempt: m.Attempt, TimeMs: m.EndedMs, InputHash: m.InputHash,
			Result: &stepwellv1.Outcome_Output{Output: m.Output},
		})
		return m.Number
	case *stepwellv1.StepFailure:
		r.failed(m.Key, kindRun, m.Attempt, m.Failure, m.Retry, m.RetryAfterMs)
	case *stepwellv1.Sleep:
		due := r.env.nowMs + int64(m.GetDurationMs())
		if until, ok := m.Until.(*stepwellv1.Sleep_UntilMs); ok {
			due = max(until.UntilMs, r.env.nowMs, 1)
		}
		r.open = append(r.open, &testWait{key: m.Key, kind: kindSleep, dueMs: due})
	case *stepwellv1.WaitForEvent:
		r.await(m)
	case *stepwellv1.Invoke:
		r.invoke(m)
	case *stepwellv1.SendEvents:
		r.send(m)
	case *stepwellv1.Abandon:
		r.abandon(m.Key)
	case *stepwellv1.Delivered:
		return r.delivered(m)
	case *stepwellv1.Mismatch:
		said := fmt.Sprintf("step %s: the journal holds %s, the code asks for %s at %s", m.Key, m.Recorded, m.Attempted, m.Location)
		r.status, r.failure = StatusPaused, &stepwellv1.Failure{Type: "NondeterminismError", Reason: "NONDETERMINISTIC", Message: said}
		r.leave()
	case *stepwellv1.Park:
		r.status = StatusParked
	case *stepwellv1.Complete:
		r.end(StatusCompleted, m.Output.GetData(), nil)
	case *stepwellv1.Fail:
		r.leave()
		if !r.failed(runKey, kindRetry, m.Attempt, m.Failure, r.fn.policy, m.RetryAfterMs) {
			r.end(StatusFailed, nil, m.Failure)
		}
	case *stepwellv1.Cancelled:
		r.endUnwound()
	}
	return 0
}

// failed opens a back-off, or gives a step its final failure; false for a function that has no attempt left.
func (r *TestRun) failed(key string, kind stepwellv1.StepKind, attempt uint32, failure *stepwellv1.Failure, retry *stepwellv1.RetryPolicy, afterMs *uint64) bool {
	if failure.GetNonRetriable() || attempt >= retry.GetMaxAttempts() {
		if kind == kindRun {
			r.answer(&testWait{key: key, kind: kindRun, attempt: attempt}, nil, failure)
		}
		return false
	}
	initial, factor, most := float64(retry.GetInitialMs()), retry.GetFactor(), float64(retry.GetMaxMs())
	if initial == 0 {
		initial = 1000
	}
	if factor == 0 {
		factor = 2
	}
	if most == 0 {
		most = 600_000
	}
	delay := int64(min(initial*math.Pow(factor, float64(attempt-1)), most))
	if afterMs != nil {
		delay = int64(*afterMs)
	}
	r.status = StatusParked
	r.open = append(r.open, &testWait{
		key: retryKey(key, attempt+1), kind: kindRetry, dueMs: r.env.nowMs + max(delay, 0), attempt: attempt + 1, failure: failure,
	})
	return true
}

func (r *TestRun) await(m *stepwellv1.WaitForEvent) {
	one := &testWait{key: m.Key, kind: kindEvent, target: m.Event, wait: m, dueMs: r.env.nowMs + int64(m.TimeoutMs)}
	if m.Condition != "" && r.env.Condition == nil {
		r.answer(one, nil, toFailure(usageError("step %s has a condition: set TestEnv.Condition to evaluate it", m.Key), 0))
		return
	}
	r.open = append(r.open, one)
	for _, event := range r.env.events[r.began:] { // what came since the run began
		if r.fits(one, event) {
			r.resolve(one, event)
			return
		}
	}
}

func (r *TestRun) invoke(m *stepwellv1.Invoke) {
	one := &testWait{key: m.Key, kind: kindInvoke, target: m.FunctionId, hash: m.InputHash, lasting: m.Detached}
	if m.TimeoutMs > 0 {
		one.dueMs = r.env.nowMs + int64(m.TimeoutMs)
	}
	app, name, _ := strings.Cut(m.FunctionId, "/")
	fn := r.env.app.functions[name]
	switch mock := r.env.invokes[m.FunctionId]; {
	case mock != nil:
		value, err := mock(json.RawMessage(m.Input.GetData()))
		var data []byte
		if err == nil {
			data, err = encode(value, "the output of "+m.FunctionId)
		}
		failure := failureOrNil(err)
		if failure != nil {
			failure.Reason = reasonRunFailed
		}
		r.answer(one, data, failure)
	case app == r.env.app.name && fn != nil:
		event := &stepwellv1.Event{Name: invoked, Data: m.Input}
		one.child = r.env.newRun(fn, event, r, m.Key)
		event.Id = one.child.ID
		r.open = append(r.open, one)
	default:
		r.answer(one, nil, &stepwellv1.Failure{
			Type: "FunctionNotFound", Reason: "FUNCTION_NOT_FOUND", Message: "no function " + m.FunctionId + ": TestEnv.MockFunction can stand for it",
		})
	}
}

func (r *TestRun) send(m *stepwellv1.SendEvents) {
	var ids []string
	var failed error
	for _, event := range m.Events {
		if _, err := r.env.accept(event); err != nil && failed == nil {
			failed = err
		}
		ids = append(ids, r.env.events[len(r.env.events)-1].GetId())
	}
	data, err := encode(ids, "the ids of events")
	if failed == nil {
		failed = err
	}
	r.answer(&testWait{key: m.Key, kind: kindSend, target: m.Events[0].GetName(), hash: m.InputHash}, data, failureOrNil(failed))
}

func (r *TestRun) abandon(key string) {
	var kept, closed []*testWait
	for _, one := range r.open {
		if base, _ := splitAttempt(one.key); one.key == key || base == key {
			closed = append(closed, one)
		} else {
			kept = append(kept, one)
		}
	}
	r.open = kept
	r.unseen = slices.DeleteFunc(r.unseen, func(one *testOutcome) bool { return one.message.GetKey() == key })
	for _, one := range closed {
		if one.child != nil && !one.lasting {
			one.child.cancel("its parent no longer waits for it")
		}
	}
}

func (r *TestRun) delivered(m *stepwellv1.Delivered) (number uint64) {
	for _, key := range m.Keys {
		outcome := &stepwellv1.Outcome{Key: key.Key, TimeMs: r.env.nowMs, Result: &stepwellv1.Outcome_Failure{Failure: r.cancelled}} // $cancel
		if at := slices.IndexFunc(r.unseen, func(one *testOutcome) bool { return one.message.GetKey() == key.Key }); at >= 0 {
			outcome = r.unseen[at].message
			r.unseen = slices.Delete(r.unseen, at, at+1)
		}
		outcome.Number = key.Number
		r.journal = append(r.journal, outcome)
		number = max(number, key.Number)
	}
	return number
}

// endUnwound ends the run with what its end was asked for.
func (r *TestRun) endUnwound() {
	status := StatusCancelled
	if r.cancelled.GetReason() == reasonRunTimedOut {
		status = StatusTimedOut
	}
	r.end(status, nil, r.cancelled)
}

func (r *TestRun) end(status RunStatus, output []byte, failure *stepwellv1.Failure) {
	r.leave()
	r.status, r.output, r.failure = status, output, failure
	for _, one := range slices.Clone(r.open) {
		r.abandon(one.key)
	}
	r.unseen = nil
	if r.parent == nil {
		return
	}
	for _, one := range slices.Clone(r.parent.open) {
		if one.child == r {
			passed := proto.CloneOf(failure)
			if status == StatusFailed {
				passed.Reason = reasonRunFailed
			}
			r.parent.close(one, output, passed)
		}
	}
}
