// What tests outside the package see of its inside.

package stepwell

import (
	"context"
	"log/slog"
	"reflect"
	"time"

	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// Core is the re-entry core, as the tests of transcripts drive it.
type Core struct{ r *reentry }

// Body is a body that began.
type Body struct {
	Key       string
	Attempt   uint32
	Args      []any
	LastError *stepwellv1.Failure
}

// NewCore makes the core of a run. patience is how long its code may block.
func NewCore(function Declared, assign *stepwellv1.Assign, limits *stepwellv1.Limits, patience time.Duration) *Core {
	r := newReentry(function.declared(), assign, limits, context.Background(), slog.New(slog.DiscardHandler))
	r.patience = patience
	return &Core{r}
}

func (c *Core) Start()                              { c.r.start() }
func (c *Core) Resolve(outcome *stepwellv1.Outcome) { c.r.resolve(outcome) }
func (c *Core) Ack(number uint64)                   { c.r.ack(number) }
func (c *Core) Cancel(failure *stepwellv1.Failure)  { c.r.cancel(failure) }
func (c *Core) Evict()                              { c.r.evict() }
func (c *Core) State() string                       { return string(c.r.state) }
func (c *Core) Commands() []proto.Message           { return messages(c.r.takeCommands()) }
func (c *Core) Unacknowledged() []proto.Message     { return messages(c.r.unacknowledged()) }
func (c *Core) Finish(key string, attempt uint32, value any, err error, startedMs, endedMs int64) {
	c.r.finish(key, attempt, value, err, startedMs, endedMs)
}

func (c *Core) Bodies() []Body {
	var bodies []Body
	for _, b := range c.r.bodies {
		bodies = append(bodies, Body{b.key, b.attempt, b.args, b.lastError})
	}
	c.r.bodies = nil
	return bodies
}

func (c *Core) Interrupts() []string {
	interrupts := c.r.interrupts
	c.r.interrupts = nil
	return interrupts
}

// StepTimeout is what the worker reports of a body that took too long.
func StepTimeout(said string) error { return timeoutError("", said) }

// SchemaOf is what is registered for an input or output of type T.
func SchemaOf[T any](output bool) string { return string(schemaOf(reflect.TypeFor[T](), output)) }

// Specs are what a worker of the app registers, or what is wrong with it.
func (a *App) Specs() ([]*stepwellv1.FunctionSpec, error) { return a.specs(), a.err }

// Clock is the one by which a worker's streams judge whether its process stood still.
func Clock(now func() time.Time) WorkerOption {
	return workerOption(func(s *workerSettings) { s.now = now })
}

func messages(commands []command) []proto.Message {
	var all []proto.Message
	for _, c := range commands {
		all = append(all, c)
	}
	return all
}

// CrashWhen enters a run again over its journal, instead of going on, whenever crash says so.
func (e *TestEnv) CrashWhen(crash func() bool) { e.crash = crash }

// Replayed is the output of a new entry over all that the code of an ended run has seen.
func (r *TestRun) Replayed(patience time.Duration) (output string) {
	assign := &stepwellv1.Assign{RunId: r.ID, Turn: 99, FunctionId: r.FunctionID, Event: r.event, CreatedMs: r.createdMs}
	for _, outcome := range r.journal {
		assign.Journal = append(assign.Journal, proto.CloneOf(outcome))
	}
	core := newReentry(r.fn, assign, r.env.limits, context.Background(), slog.New(slog.DiscardHandler))
	core.patience = patience
	core.start()
	defer core.evict()
	for _, one := range core.takeCommands() {
		if done, ok := one.(*stepwellv1.Complete); ok {
			if err := decode(done.Output.Data, &output, "the output"); err != nil {
				return err.Error()
			}
			return output
		}
	}
	return "it did not complete: " + string(core.state)
}

// Tried are the addresses in the order in which they are tried while each fails; one that is not the first fails again.
func Tried(text string, times int) (tried []string) {
	nodes, err := newAddresses(text)
	if err != nil {
		return []string{err.Error()}
	}
	for range times {
		tried = append(tried, nodes.next())
		nodes.failed(tried[len(tried)-1])
		nodes.failed(tried[len(tried)-1])
	}
	return tried
}
