// Test kit: functions in memory, with a virtual clock, without a server.

package stepwell

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// TestEnv runs functions of an app in memory. Bodies execute for real, one at a time; sleeps, time-outs and back-offs wait
// for Advance. It is for one goroutine. Jitter is left out: each delay is the longest it can be. A run starts as soon as it is
// created, so a StartTimeout is never over.
type TestEnv struct {
	// Condition evaluates conditions of triggers and waits, which are CEL: given the condition, the event that started the
	// run (or may start one), and the awaited event (nil for a trigger). Without it a condition is an ErrUsage.
	Condition func(condition string, event, awaited *Event[json.RawMessage]) bool
	// Reenter enters a run again over its journal each time it goes on, as after a crash. Code that does not take the same
	// way each time then shows itself as a mismatch.
	Reenter bool

	app     *App
	limits  *stepwellv1.Limits
	bodies  *bodies
	nowMs   int64
	ids     int
	events  []*stepwellv1.Event
	runs    []*TestRun
	mocks   map[string]func(context.Context) (any, error)
	invokes map[string]func(input json.RawMessage) (any, error)
	moving  bool
	crash   func() bool // tells that the run is to be entered again before it goes on
}

// NewTestEnv makes an environment whose clock stands at the start of the year 2030. Its error is that of the app's
// declaration.
func NewTestEnv(app *App) (*TestEnv, error) {
	if app.err != nil {
		return nil, app.err
	}
	e := &TestEnv{
		app: app, nowMs: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(),
		mocks: map[string]func(context.Context) (any, error){}, invokes: map[string]func(json.RawMessage) (any, error){},
		limits: &stepwellv1.Limits{
			EventBytes: eventBytes, ResultBytes: resultBytes, FailureBytes: failureBytesFallback, JournalSteps: 10_000,
			KeyBytes: keyBytesFallback, Branches: 1000, FrameBytes: sendBytes,
		},
	}
	e.crash = func() bool { return false }
	e.bodies = &bodies{base: context.Background(), nowMs: func() int64 { return e.nowMs }, log: slog.Default()}
	return e, nil
}

// MockStep executes this body instead of that of each step with the key, in any run.
func (e *TestEnv) MockStep(key string, body func(ctx context.Context) (any, error)) {
	e.mocks[key] = body
}

// MockFunction answers invokes of a function, by "app/name", instead of a run.
func (e *TestEnv) MockFunction(functionID string, code func(input json.RawMessage) (any, error)) {
	e.invokes[functionID] = code
}

// Now is the time of the virtual clock.
func (e *TestEnv) Now() time.Time { return fromMs(e.nowMs) }

// Send accepts an event: it starts the functions that it triggers, and resolves waits. It returns the runs that it started,
// once nothing can go on without the clock or another event.
func (e *TestEnv) Send(name string, data any) ([]*TestRun, error) {
	message, err := NewEvent{Name: name, Data: data}.message(e.limits.EventBytes)
	if err != nil {
		return nil, err
	}
	started, err := e.accept(message)
	if err != nil {
		return nil, err
	}
	e.move()
	return started, nil
}

// Start starts a run of a function, by its name, with an input. It returns once nothing can go on without the clock or an
// event.
func (e *TestEnv) Start(function string, input any) (*TestRun, error) {
	name := strings.TrimPrefix(function, e.app.name+"/")
	definition := e.app.functions[name]
	if definition == nil {
		return nil, usageError("app %s has no function %q", e.app.name, function)
	}
	data, err := encode(input, "the input of "+function)
	if err != nil {
		return nil, err
	}
	run := e.newRun(definition, &stepwellv1.Event{Name: invoked, Data: &stepwellv1.Payload{Data: data}}, nil, "")
	run.event.Id = run.ID
	e.move()
	return run, nil
}

// StartBatch starts a run of a BatchFunction, by its name, with events of this name: one for each data. It stands for what
// the server gathers; Send starts a run of one event at once. It returns once nothing can go on without the clock or an event.
func (e *TestEnv) StartBatch(function, event string, data ...any) (*TestRun, error) {
	definition := e.app.functions[strings.TrimPrefix(function, e.app.name+"/")]
	if definition == nil || definition.flow.GetBatch() == nil {
		return nil, usageError("app %s has no BatchFunction %q", e.app.name, function)
	}
	if len(data) == 0 {
		return nil, usageError("a batch of %s has no event", function)
	}
	var gathered []*stepwellv1.Event
	for _, one := range data {
		message, err := NewEvent{Name: event, Data: one}.message(e.limits.EventBytes)
		if err != nil {
			return nil, err
		}
		gathered = append(gathered, e.store(message))
	}
	run := e.newRun(definition, gathered[0], nil, "")
	run.gathered = gathered
	e.move()
	return run, nil
}

// Advance moves the clock forward, due instant by due instant; each is worked off before the next.
func (e *TestEnv) Advance(by time.Duration) {
	until := e.nowMs + toMs(by)
	for {
		due, found := e.nextDue()
		if !found || due > until {
			break
		}
		e.nowMs = max(e.nowMs, due)
		e.fire()
		e.move()
	}
	e.nowMs = until
}

// TestRun is a run in a TestEnv.
type TestRun struct {
	ID         string
	FunctionID string

	env       *TestEnv
	fn        *definition
	event     *stepwellv1.Event
	gathered  []*stepwellv1.Event // of a BatchFunction
	began     int                 // events accepted before it
	consumed  map[string]bool
	parent    *TestRun
	parentKey string
	createdMs int64
	turn      uint32
	core      *reentry
	queue     []*bodyCall
	journal   []*stepwellv1.Outcome // seen, by number
	unseen    []*testOutcome
	open      []*testWait
	status    RunStatus
	cancelled *stepwellv1.Failure // what it is to end with; nil: its end was not asked for
	deadline  int64               // when its time-out is over; 0: never
	output    []byte
	failure   *stepwellv1.Failure
}

// testWait is a key that is open.
type testWait struct {
	key     string
	kind    stepwellv1.StepKind
	target  string
	hash    []byte
	dueMs   int64 // 0: never
	wait    *stepwellv1.WaitForEvent
	child   *TestRun
	lasting bool // a detached child
	// Of a back-off: the attempt that may begin, and the failure of the one before.
	attempt uint32
	failure *stepwellv1.Failure
}

// testOutcome is one that the code has not seen; sent tells that this entry of the run has it.
type testOutcome struct {
	message *stepwellv1.Outcome
	sent    bool
}

// Status is where the run stands: RUNNING never, since it stands still.
func (r *TestRun) Status() RunStatus { return r.status }

// Result decodes the output unless into is nil. Its error is a *StepError as that of RunHandle.Result, or an ErrUsage if the
// run has not ended.
func (r *TestRun) Result(into any) error {
	if !r.status.Ended() {
		return usageError("%s of %s has not ended: it is %s and waits for %s", r.ID, r.FunctionID, r.status, r.WaitsFor())
	}
	if r.status != StatusCompleted {
		return runError(&stepwellv1.Run{Id: r.ID, FunctionId: r.FunctionID, Failure: r.failure}, r.status)
	}
	if into == nil {
		return nil
	}
	return decode(r.output, into, "the output of "+r.ID)
}

// Failure is what the run ended with, or why it is PAUSED; nil if it is neither.
func (r *TestRun) Failure() *Failure { return failureFrom(r.failure) }

// WaitsFor are the keys that are open, in the order in which they began.
func (r *TestRun) WaitsFor() []string {
	var keys []string
	for _, one := range r.open {
		keys = append(keys, one.key)
	}
	return keys
}

// Keys are those whose outcomes the code has seen, in that order.
func (r *TestRun) Keys() []string {
	var keys []string
	for _, one := range r.journal {
		keys = append(keys, one.GetKey())
	}
	return keys
}

// Children are the runs that it invoked.
func (r *TestRun) Children() []*TestRun {
	var children []*TestRun
	for _, one := range r.env.runs {
		if one.parent == r {
			children = append(children, one)
		}
	}
	return children
}

// Cancel asks for the end of the run, and returns once nothing can go on without the clock or an event.
func (r *TestRun) Cancel() {
	r.cancel("cancelled by the test")
	r.env.move()
}

func (r *TestRun) cancel(message string) {
	r.unwind(&stepwellv1.Failure{Type: "RunCancelledError", Reason: reasonRunCancelled, Message: message})
}

// unwind lets the run end with a failure, once its code has cleaned up. Of several the first wins.
func (r *TestRun) unwind(failure *stepwellv1.Failure) {
	if r.status.Ended() || r.cancelled != nil {
		return
	}
	r.cancelled = failure
	for _, one := range slices.Clone(r.open) {
		if one.child != nil && !one.lasting {
			one.child.cancel("its parent ends")
		}
	}
	switch {
	case r.status == StatusPaused: // no code can be unwound
		r.endUnwound()
		return
	case r.core != nil:
		r.core.cancel(failure)
	default:
		r.open = slices.DeleteFunc(r.open, func(one *testWait) bool { return one.kind == kindRetry && strings.HasPrefix(one.key, runKey) })
		r.enter()
	}
	r.take()
}

func (e *TestEnv) newRun(fn *definition, event *stepwellv1.Event, parent *TestRun, key string) *TestRun {
	e.ids++
	run := &TestRun{
		ID: fmt.Sprintf("run_%032d", e.ids), FunctionID: fn.id, env: e, fn: fn, event: event, began: len(e.events),
		consumed: map[string]bool{event.GetId(): true}, parent: parent, parentKey: key, createdMs: e.nowMs, status: StatusQueued,
	}
	e.runs = append(e.runs, run)
	return run
}
