// Events and due times of the test kit: what they start, and whose waits they end.

package stepwell

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// accept stores an event, starts what it triggers and resolves the waits that it fits.
func (e *TestEnv) accept(message *stepwellv1.NewEvent) ([]*TestRun, error) {
	event := e.store(message)
	var started []*TestRun
	for _, fn := range e.app.order {
		fits, err := e.triggers(fn, event)
		if err != nil {
			return nil, err
		}
		if fits {
			started = append(started, e.newRun(fn, event, nil, ""))
		}
	}
	for _, run := range e.runs {
		for _, one := range slices.Clone(run.open) {
			if run.fits(one, event) {
				run.resolve(one, event)
			}
		}
	}
	return started, nil
}

// store keeps an event under an id of its own.
func (e *TestEnv) store(message *stepwellv1.NewEvent) *stepwellv1.Event {
	e.ids++
	event := &stepwellv1.Event{
		Id: fmt.Sprintf("evt_%032d", e.ids), Name: message.GetName(), Data: message.GetData(), SenderId: message.GetId(),
		TimeMs: message.GetTimeMs(), AcceptedMs: e.nowMs, Metadata: message.GetMetadata(),
	}
	if event.TimeMs == 0 {
		event.TimeMs = e.nowMs
	}
	e.events = append(e.events, event)
	return event
}

func (e *TestEnv) triggers(fn *definition, event *stepwellv1.Event) (bool, error) {
	for _, trigger := range fn.triggers {
		prefix, wild := strings.CutSuffix(trigger.Event, "*")
		if trigger.Event != event.GetName() && !(wild && strings.HasPrefix(event.GetName(), prefix)) {
			continue
		}
		if trigger.If == "" {
			return true, nil
		}
		if e.Condition == nil {
			return false, usageError("the trigger of %s has a condition: set TestEnv.Condition to evaluate it", fn.id)
		}
		if started := &storedFrom(event, nil).Event; e.Condition(trigger.If, started, nil) {
			return true, nil
		}
	}
	return false, nil
}

// fits tells whether an event resolves a wait of the run.
func (r *TestRun) fits(one *testWait, event *stepwellv1.Event) bool {
	wait := one.wait
	if wait == nil || wait.GetEvent() != event.GetName() || r.consumed[event.GetId()] {
		return false
	}
	if wait.GetMatchPath() != "" {
		value, err := matchValue(event, wait.GetMatchPath())
		if err != nil || !bytes.Equal(value, wait.GetMatchValue()) {
			return false
		}
	}
	return wait.GetCondition() == "" ||
		r.env.Condition(wait.GetCondition(), &storedFrom(r.event, nil).Event, &storedFrom(event, nil).Event)
}

func (r *TestRun) resolve(one *testWait, event *stepwellv1.Event) {
	r.consumed[event.GetId()] = true
	data, err := encode(map[string]any{
		"id": event.GetId(), "name": event.GetName(), "data": orEmpty(event.GetData().GetData()), "time_ms": event.GetTimeMs(),
		"metadata": event.GetMetadata(), "sender_id": event.GetSenderId(),
	}, "event "+event.GetName())
	r.close(one, data, failureOrNil(err))
}

func failureOrNil(err error) *stepwellv1.Failure {
	if err == nil {
		return nil
	}
	return toFailure(err, 0)
}

// close makes an outcome of an open key.
func (r *TestRun) close(one *testWait, data []byte, failure *stepwellv1.Failure) {
	r.open = slices.DeleteFunc(r.open, func(other *testWait) bool { return other == one })
	r.answer(one, data, failure)
}

func (r *TestRun) answer(one *testWait, data []byte, failure *stepwellv1.Failure) {
	outcome := &stepwellv1.Outcome{
		Key: one.key, Kind: one.kind, Target: one.target, Attempt: max(one.attempt, 1), TimeMs: r.env.nowMs, InputHash: one.hash,
		Result: &stepwellv1.Outcome_Output{Output: &stepwellv1.Payload{Data: data}},
	}
	if failure != nil {
		outcome.Result = &stepwellv1.Outcome_Failure{Failure: failure}
	}
	r.unseen = append(r.unseen, &testOutcome{message: outcome})
}

// nextDue is the next instant at which something falls due.
func (e *TestEnv) nextDue() (ms int64, found bool) {
	for _, run := range e.runs {
		if due := run.deadline; due > 0 && run.cancelled == nil && !run.status.Ended() && (!found || due < ms) {
			ms, found = due, true
		}
		for _, one := range run.open {
			if one.dueMs > 0 && (!found || one.dueMs < ms) {
				ms, found = one.dueMs, true
			}
		}
	}
	return ms, found
}

// fire makes outcomes of what is due now.
func (e *TestEnv) fire() {
	for _, run := range slices.Clone(e.runs) {
		if run.deadline > 0 && run.deadline <= e.nowMs {
			limit := time.Duration(run.fn.timeoutMs) * time.Millisecond
			run.unwind(&stepwellv1.Failure{
				Type: "RunTimedOutError", Reason: reasonRunTimedOut, Message: fmt.Sprintf("the run had not ended %s after its start (timeout)", limit),
			})
		}
		for _, one := range slices.Clone(run.open) {
			if one.dueMs == 0 || one.dueMs > e.nowMs || !slices.Contains(run.open, one) {
				continue
			}
			if one.kind != kindInvoke {
				run.close(one, nil, one.failure)
				continue
			}
			run.close(one, nil, &stepwellv1.Failure{Type: "InvokeTimeoutError", Reason: reasonTimeout, Message: "it took too long"})
			if !one.lasting {
				one.child.cancel("the time-out of its call is over")
			}
		}
	}
}
