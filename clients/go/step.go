// Steps: what a function's code does durably. Each call gets its key and begins when it is made, then waits.

package stepwell

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// Run executes a body once, durably. Its result passes through JSON, also the first time. The name is its key; repeats get
// :2, :3. A body that fails is tried again, by the retries of the function or those given; then Run returns a *StepError.
//
// The body's context is done when it takes longer than its Timeout, and when its run is cancelled or leaves this worker.
func Run[T any](ctx Context, name string, body func(ctx context.Context) (T, error), opts ...RunOption) (T, error) {
	var result, none T
	var options runOptions
	for _, opt := range opts {
		opt.applyRun(&options)
	}
	c := &call{kind: kindRun, args: options.args, body: func(ctx context.Context) (any, error) { return body(ctx) }}
	c.read = func(data []byte) error { return decode(data, &result, "the result of step "+c.key) }
	err := ctx.fiber().step("Run", name, c, func(r *reentry) error { return options.apply(r, c, name) })
	if err != nil {
		return none, err
	}
	return result, nil
}

func (o *runOptions) apply(r *reentry, c *call, name string) (err error) {
	c.policy = r.fn.policy
	if o.retry != nil {
		if c.policy, err = o.retry.policy(); err != nil {
			return usageError("step %s: %v", name, err)
		}
	}
	if o.timeout != nil {
		if err := checkDuration("step "+name+", time-out", *o.timeout); err != nil {
			return err
		}
		c.timeout = max(*o.timeout, time.Millisecond)
	}
	if r.fn.strict && len(o.args) > 0 {
		c.hash, err = inputHash(o.args, "the input of step "+name)
	}
	return err
}

// Sleep waits, at most 366 days. The run is parked meanwhile. Its key is "sleep" unless Name gives another.
func Sleep(ctx Context, d time.Duration, opts ...SleepOption) error {
	name := nameOption("sleep")
	for _, opt := range opts {
		opt.applySleep(&name)
	}
	c := sleepCall()
	return ctx.fiber().step("Sleep", string(name), c, func(*reentry) error {
		if err := checkDuration("step "+string(name), d); err != nil {
			return err
		}
		c.command = &stepwellv1.Sleep{Until: &stepwellv1.Sleep_DurationMs{DurationMs: uint64(toMs(d))}}
		return nil
	})
}

// SleepUntil waits until an instant, at most 366 days off; one in the past is due at once. Its key is "sleep_until".
func SleepUntil(ctx Context, instant time.Time, opts ...SleepOption) error {
	name := nameOption("sleep_until")
	for _, opt := range opts {
		opt.applySleep(&name)
	}
	c := sleepCall()
	return ctx.fiber().step("SleepUntil", string(name), c, func(r *reentry) error {
		// The clock of the run stands still between outcomes, that of this machine may be wrong: the later one decides.
		latest := max(r.nowMs, time.Now().UnixMilli()) + toMs(durationMax)
		if instant.UnixMilli() > latest {
			return usageError("step %s: %s is more than 366 days ahead", name, instant)
		}
		c.command = &stepwellv1.Sleep{Until: &stepwellv1.Sleep_UntilMs{UntilMs: instant.UnixMilli()}}
		return nil
	})
}

func sleepCall() *call {
	return &call{kind: kindSleep, read: func([]byte) error { return nil }}
}

// WaitForEvent waits for an event accepted since this run began; false at the time-out (default and most: 366 days). T is
// the type of its data, or an Event of that type where id, time and metadata matter. The key is the event's name.
func WaitForEvent[T any](ctx Context, event string, opts ...WaitOption) (data T, came bool, err error) {
	var options waitOptions
	for _, opt := range opts {
		opt.applyWait(&options)
	}
	name := options.name.or(event)
	c := &call{kind: kindEvent, target: event}
	c.read = func(raw []byte) error {
		if came = len(raw) > 0; !came {
			return nil
		}
		return readWait(raw, &data, "the event of step "+c.key)
	}
	err = ctx.fiber().step("WaitForEvent", name, c, func(r *reentry) error { return options.apply(r, c, event) })
	if err != nil {
		var none T
		return none, false, err
	}
	return data, came, nil
}

func (o *waitOptions) apply(r *reentry, c *call, event string) (err error) {
	if err := checkAwaited(event); err != nil {
		return err
	}
	wait := &stepwellv1.WaitForEvent{Event: event, MatchPath: o.match, Condition: o.condition, TimeoutMs: uint64(toMs(durationMax))}
	if o.timeout != nil {
		if wait.TimeoutMs, err = timeoutMs(o.timeout, o.name.or(event)); err != nil {
			return err
		}
	}
	if o.match != "" {
		if wait.MatchValue, err = matchValue(r.event, o.match); err != nil {
			return err
		}
	}
	c.command = wait
	return nil
}

// Invoke runs a function of any app and language ("app/name", or a name of the own app) and returns its output. The key is
// the function's id. The child is cancelled with its parent and at the time-out, unless Detached. The error is a *StepError,
// an ErrInvoke; ErrRunFailed, ErrRunCancelled, ErrRunTimedOut (a time-out of the function) and ErrTimeout (that of this call)
// tell why.
func Invoke[Out any](ctx Context, function string, input any, opts ...InvokeOption) (Out, error) {
	var output, none Out
	var options invokeOptions
	for _, opt := range opts {
		opt.applyInvoke(&options)
	}
	f := ctx.fiber()
	target := function
	if !strings.Contains(target, "/") {
		target = f.core.fn.app + "/" + target
	}
	c := &call{kind: kindInvoke, target: target}
	c.read = func(data []byte) error { return decode(data, &output, "the output of "+target) }
	err := f.step("Invoke", options.name.or(target), c, func(r *reentry) error { return options.apply(r, c, input) })
	if err != nil {
		return none, err
	}
	return output, nil
}

func (o *invokeOptions) apply(r *reentry, c *call, input any) error {
	what := "the input of " + c.target
	data, err := encode(input, what)
	if err != nil {
		return err
	}
	if most := r.limits.GetResultBytes(); most > 0 && len(data) > int(most) {
		return limitError("%s has %d bytes; result_bytes is %d", what, len(data), most)
	}
	invoke := &stepwellv1.Invoke{FunctionId: c.target, Input: &stepwellv1.Payload{Data: data}, Detached: o.detached}
	if o.timeout != nil {
		if invoke.TimeoutMs, err = timeoutMs(o.timeout, o.name.or(c.target)); err != nil {
			return err
		}
	}
	if r.fn.strict {
		if c.hash, err = inputHash([]any{json.RawMessage(data)}, what); err != nil {
			return err
		}
		invoke.InputHash = c.hash
	}
	if r.trace != nil {
		invoke.Metadata = map[string]string{}
		r.trace.Carry(invoke.Metadata)
	}
	c.command = invoke
	return nil
}

// SendEvent sends an event, once, and returns its id. Its key is "send_event".
func SendEvent(ctx Context, name string, data any, opts ...SendOption) (string, error) {
	ids, err := sendEvents(ctx, "send_event", []NewEvent{{Name: name, Data: data}}, opts)
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// SendEvents sends events, once, together; it returns their ids in order. Its key is "send_events". None to send: no step,
// and no ids.
func SendEvents(ctx Context, events []NewEvent, opts ...SendOption) ([]string, error) {
	if len(events) == 0 {
		return []string{}, ctx.fiber().nothing("SendEvents")
	}
	return sendEvents(ctx, "send_events", events, opts)
}

func sendEvents(ctx Context, key nameOption, events []NewEvent, opts []SendOption) (ids []string, err error) {
	for _, opt := range opts {
		opt.applySend(&key)
	}
	c := &call{kind: kindSend}
	c.read = func(data []byte) error {
		if err := decode(data, &ids, "the ids of step "+c.key); err != nil {
			return err
		}
		if len(ids) != len(events) {
			return usageError("step %s: %d ids for %d events", c.key, len(ids), len(events))
		}
		return nil
	}
	err = ctx.fiber().step("SendEvents", string(key), c, func(r *reentry) error { return applySend(r, c, events) })
	return ids, err
}

func applySend(r *reentry, c *call, events []NewEvent) error {
	send := &stepwellv1.SendEvents{}
	var hashed []any
	for _, event := range events {
		message, err := event.message(r.limits.GetEventBytes())
		if err != nil {
			return err
		}
		if r.trace != nil {
			if message.Metadata == nil {
				message.Metadata = map[string]string{}
			}
			r.trace.Carry(message.Metadata)
		}
		send.Events = append(send.Events, message)
		hashed = append(hashed, []any{message.Name, message.Id, json.RawMessage(message.GetData().GetData())})
	}
	if most := r.limits.GetFrameBytes(); most > 0 && proto.Size(send) > int(most) {
		return limitError("SendEvents: %d bytes of events; frame_bytes is %d", proto.Size(send), most)
	}
	if r.fn.strict {
		hash, err := inputHash(hashed, "the events")
		if err != nil {
			return err
		}
		c.hash, send.InputHash = hash, hash
	}
	c.target, c.command = events[0].Name, send
	return nil
}

// Now is the time of the last outcome that the code has seen (at the start: of the run's creation): the same in replay.
func Now(ctx Context) time.Time {
	defer mustEnter(ctx, "Now")()
	return fromMs(ctx.fiber().core.nowMs)
}

// Random makes random numbers that are the same in replay. Those of its method Float64 are so in all languages.
func Random(ctx Context) *rand.Rand {
	defer mustEnter(ctx, "Random")()
	core := ctx.fiber().core
	return core.chance.random(core.runID)
}

// UUID makes a random id that is the same in replay and in all languages. It is no secret: the run's id decides it.
func UUID(ctx Context) string {
	defer mustEnter(ctx, "UUID")()
	core := ctx.fiber().core
	return core.chance.uuid(core.runID)
}

// mustEnter panics where the code has no business with its Context: there is no error that such a call could return.
func mustEnter(ctx Context, what string) (leave func()) {
	f := ctx.fiber()
	if err := f.enter(what); err != nil {
		panic(err)
	}
	return f.leave
}

func (n NameOption) or(name string) string {
	if n != "" {
		return string(n)
	}
	return name
}

// timeoutMs is what stands on the wire, where zero would mean none.
func timeoutMs(d *time.Duration, name string) (uint64, error) {
	if err := checkDuration("step "+name+", time-out", *d); err != nil {
		return 0, err
	}
	return uint64(max(toMs(*d), 1)), nil
}
