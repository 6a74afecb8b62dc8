// Options of steps and functions. Each has a type that says where it may stand: an option of another call does not compile.

package stepwell

import "time"

// RunOption is an option of Run: Timeout, Retries, Retry, Input.
type RunOption interface{ applyRun(*runOptions) }

// SleepOption is an option of Sleep and SleepUntil: Name.
type SleepOption interface{ applySleep(*nameOption) }

// WaitOption is an option of WaitForEvent: Match, If, Timeout, Name.
type WaitOption interface{ applyWait(*waitOptions) }

// InvokeOption is an option of Invoke: Timeout, Detached, Name.
type InvokeOption interface{ applyInvoke(*invokeOptions) }

// SendOption is an option of SendEvent and SendEvents: Name.
type SendOption interface{ applySend(*nameOption) }

// FunctionOption is an option of Function: Retries, Retry, Strict, Timeout, StartTimeout, InputSchema, Labels; and of its
// flow: Concurrency, Throttle, RateLimit, Debounce, Singleton, Priority.
type FunctionOption interface{ applyFunction(*functionOptions) }

type runOptions struct {
	retry   *Retry
	timeout *time.Duration
	args    []any
}

type waitOptions struct {
	name      nameOption
	match     string
	condition string
	timeout   *time.Duration
}

type invokeOptions struct {
	name     nameOption
	timeout  *time.Duration
	detached bool
}

type functionOptions struct {
	retry        Retry
	strict       bool
	timeout      *time.Duration
	startTimeout *time.Duration
	inputSchema  *string
	flow         flowOptions
	labels       Labels
}

// TimeoutOption is made by Timeout.
type TimeoutOption time.Duration

// Timeout bounds one attempt of a body, a wait for an event, an invoke, or a whole function: the time from a run's first
// start to its end. At most 366 days. A run whose time is over is unwound as by a cancel, and ends TIMED_OUT.
func Timeout(d time.Duration) TimeoutOption { return TimeoutOption(d) }

func (t TimeoutOption) applyRun(o *runOptions)           { o.timeout = (*time.Duration)(&t) }
func (t TimeoutOption) applyWait(o *waitOptions)         { o.timeout = (*time.Duration)(&t) }
func (t TimeoutOption) applyInvoke(o *invokeOptions)     { o.timeout = (*time.Duration)(&t) }
func (t TimeoutOption) applyFunction(o *functionOptions) { o.timeout = (*time.Duration)(&t) }

// StartTimeoutOption is made by StartTimeout.
type StartTimeoutOption time.Duration

// StartTimeout bounds the time from the creation of a function's run to its first start: how long it may wait for a worker.
// At most 366 days. A run that has not started then ends TIMED_OUT.
func StartTimeout(d time.Duration) StartTimeoutOption { return StartTimeoutOption(d) }

func (t StartTimeoutOption) applyFunction(o *functionOptions) { o.startTimeout = (*time.Duration)(&t) }

// NameOption is made by Name.
type NameOption string

type nameOption = NameOption

// Name is the key of a step, instead of the one it has by itself.
func Name(name string) NameOption { return NameOption(name) }

func (n NameOption) applySleep(o *nameOption)     { *o = n }
func (n NameOption) applySend(o *nameOption)      { *o = n }
func (n NameOption) applyWait(o *waitOptions)     { o.name = n }
func (n NameOption) applyInvoke(o *invokeOptions) { o.name = n }

// MatchOption is made by Match.
type MatchOption string

// Match names a path, for example "data.user_id", at which the awaited event must hold what the event that started the
// run holds there. It leads through objects, not lists.
func Match(path string) MatchOption { return MatchOption(path) }

func (m MatchOption) applyWait(o *waitOptions) { o.match = string(m) }

// IfOption is made by If.
type IfOption string

// If is a condition in CEL over event (the one that started the run) and async (the awaited one).
func If(condition string) IfOption { return IfOption(condition) }

func (i IfOption) applyWait(o *waitOptions) { o.condition = string(i) }

// DetachedOption is made by Detached.
type DetachedOption struct{}

// Detached lets an invoked run go on when its parent is cancelled or gives it up.
func Detached() DetachedOption { return DetachedOption{} }

func (DetachedOption) applyInvoke(o *invokeOptions) { o.detached = true }

// InputOption is made by Input.
type InputOption []any

// Input names what a body works on. In a Strict function a recorded step with another input is a mismatch.
func Input(args ...any) InputOption { return InputOption(args) }

func (i InputOption) applyRun(o *runOptions) { o.args = i }

// InputSchemaOption is made by InputSchema.
type InputSchemaOption string

// InputSchema is JSON Schema (2020-12), as JSON text, that takes the place of the one derived from the function's type. {} takes
// anything.
func InputSchema(schema string) InputSchemaOption { return InputSchemaOption(schema) }

func (i InputSchemaOption) applyFunction(o *functionOptions) { o.inputSchema = (*string)(&i) }

// StrictOption is made by Strict.
type StrictOption struct{}

// Strict makes a changed input of a recorded step a mismatch too: of an Invoke, of events sent, and what Input names.
func Strict() StrictOption { return StrictOption{} }

func (StrictOption) applyFunction(o *functionOptions) { o.strict = true }
