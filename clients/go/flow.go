// What limits, gathers and orders the runs of a function, as values: options of Function.
//
// A Key is a CEL expression over event; runs whose key has the same value share what the option says.

package stepwell

import (
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const (
	keyExpressionBytesMax = 2048
	countMax              = 1_000_000
	concurrencyMax        = 4
	batchMax              = 1000
	labelsMax             = 16
	labelBytesMax         = 128
)

// Concurrency is an option of Function: at most Limit runs of one key at once; the others wait in the queue. A function may
// have four, which all hold.
type Concurrency struct {
	Limit int
	// Key is CEL over event; empty: all runs share the limit.
	Key string
	// Scope says among whose runs it counts; ScopeFunction if empty. In a wider scope all limits whose keys have the same value
	// count the same runs.
	Scope Scope
	// Hold says for how long a run counts; HoldExecuting if empty.
	Hold Hold
}

// Scope says among whose runs a limit counts.
type Scope string

const (
	// ScopeFunction is the runs of the function.
	ScopeFunction Scope = "function"
	// ScopeApp is those of the app's functions that have a limit of this scope.
	ScopeApp Scope = "app"
	// ScopeEnvironment is those of all functions of the environment that have a limit of this scope.
	ScopeEnvironment Scope = "environment"
)

// Hold says for how long a run counts.
type Hold string

const (
	// HoldExecuting is while it executes: not while it sleeps or waits.
	HoldExecuting Hold = "executing"
	// HoldRun is from its first start to its end.
	HoldRun Hold = "run"
)

// Throttle is an option of Function: at most Limit starts of one key in each Period, evenly spread, Burst more at once; the
// others wait.
type Throttle struct {
	Limit  int
	Period time.Duration
	Burst  int
	Key    string
}

// RateLimit is an option of Function: at most Limit runs of one key in any Period; an event too many is recorded as a skipped
// run.
type RateLimit struct {
	Limit  int
	Period time.Duration
	Key    string
}

// Debounce is an option of Function: one run for a flurry of events of one key. It starts once none has come for Period, with
// the last one; MaxWait after the first one at the latest, unless that is zero.
type Debounce struct {
	Period  time.Duration
	Key     string
	MaxWait time.Duration
}

// Batch is what a BatchFunction gathers: one run for many events of one key. It starts with MaxSize of them, or Timeout after
// the first. An event that does not fit the condition If starts a run alone, at once.
type Batch struct {
	MaxSize int
	Timeout time.Duration
	Key     string
	If      string
}

// Singleton is an option of Function: while a run of one key lives no other one starts. It does not go together with Batch or
// Debounce.
type Singleton struct {
	Key string
	// Mode says what becomes of the second run; ModeSkip if empty.
	Mode Mode
}

// Mode says what becomes of the second run of a Singleton.
type Mode string

const (
	// ModeSkip records it as skipped.
	ModeSkip Mode = "skip"
	// ModeCancel cancels the one that lives; the new one starts once that has ended.
	ModeCancel Mode = "cancel"
)

// Priority is an option of Function: CEL over event that gives whole seconds by which a run goes before others that were
// queued later, or after them if negative.
type Priority string

// Labels are an option of Function, of Run and of Serve. Those of a function are what its workers must have; those of a
// worker are what it has. At most 16, with names and values of at most 128 bytes.
type Labels map[string]string

func (c Concurrency) applyFunction(o *functionOptions) {
	o.flow.concurrency = append(o.flow.concurrency, c)
}
func (t Throttle) applyFunction(o *functionOptions)  { o.flow.throttle = &t }
func (r RateLimit) applyFunction(o *functionOptions) { o.flow.rateLimit = &r }
func (d Debounce) applyFunction(o *functionOptions)  { o.flow.debounce = &d }
func (s Singleton) applyFunction(o *functionOptions) { o.flow.singleton = &s }
func (p Priority) applyFunction(o *functionOptions)  { o.flow.priority = p }
func (l Labels) applyFunction(o *functionOptions)    { o.labels = l }
func (l Labels) applyWorker(s *workerSettings)       { s.labels = l }

// flowOptions are those that a function was given.
type flowOptions struct {
	concurrency []Concurrency
	throttle    *Throttle
	rateLimit   *RateLimit
	debounce    *Debounce
	batch       *Batch
	singleton   *Singleton
	priority    Priority
}

// message is what the worker says of a function's flow; nil where nothing was given.
func (o flowOptions) message() (*stepwellv1.Flow, error) {
	flow, c := &stepwellv1.Flow{}, flowCheck{}
	flow.Concurrency = c.concurrency(o.concurrency)
	if t := o.throttle; t != nil {
		c.option = "Throttle"
		flow.Throttle = &stepwellv1.Throttle{
			Limit: c.count("Limit", t.Limit, 1, countMax), PeriodMs: c.span("Period", t.Period, 1000),
			Burst: c.count("Burst", t.Burst, 0, countMax), Key: c.expression(t.Key),
		}
	}
	if r := o.rateLimit; r != nil {
		c.option = "RateLimit"
		flow.RateLimit = &stepwellv1.RateLimit{
			Limit: c.count("Limit", r.Limit, 1, countMax), PeriodMs: c.span("Period", r.Period, 1000), Key: c.expression(r.Key),
		}
	}
	if d := o.debounce; d != nil {
		c.option = "Debounce"
		flow.Debounce = &stepwellv1.Debounce{PeriodMs: c.span("Period", d.Period, 100), Key: c.expression(d.Key)}
		if d.MaxWait != 0 {
			flow.Debounce.MaxWaitMs = c.span("MaxWait", d.MaxWait, toMs(d.Period))
		}
	}
	if b := o.batch; b != nil {
		c.option = "Batch"
		flow.Batch = &stepwellv1.Batch{
			MaxSize: c.count("MaxSize", b.MaxSize, 2, batchMax), TimeoutMs: c.span("Timeout", b.Timeout, 100),
			Key: c.expression(b.Key), Condition: c.expression(b.If),
		}
		if o.debounce != nil {
			c.refuse("a function gathers events by Batch or by Debounce, not by both")
		}
	}
	if s := o.singleton; s != nil {
		c.option = "Singleton"
		flow.Singleton = &stepwellv1.Singleton{Key: c.expression(s.Key), Mode: choice(&c, "Mode", s.Mode, modes)}
		if o.batch != nil || o.debounce != nil {
			c.refuse("not together with Batch or Debounce")
		}
	}
	c.option = "Priority"
	flow.Priority = c.expression(string(o.priority))
	if c.err != nil || proto.Size(flow) == 0 {
		return nil, c.err
	}
	return flow, nil
}

// check answers a usage error for what cannot be labels.
func (l Labels) check() error {
	if len(l) > labelsMax {
		return usageError("Labels: at most %d", labelsMax)
	}
	printable := func(text string) bool {
		for _, char := range text {
			if !unicode.IsPrint(char) {
				return false
			}
		}
		return utf8.ValidString(text) && len(text) <= labelBytesMax
	}
	for name, value := range l {
		if name == "" || !printable(name) || !printable(value) {
			return usageError("Labels: %q: names and values are printable text of at most %d bytes", name, labelBytesMax)
		}
	}
	return nil
}

// flowCheck converts the fields of options; it keeps the first error, which names the option.
type flowCheck struct {
	option string
	err    error
}

func (c *flowCheck) refuse(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%s: %s", c.option, fmt.Sprintf(format, args...))
	}
}

func (c *flowCheck) concurrency(limits []Concurrency) []*stepwellv1.Concurrency {
	c.option = "Concurrency"
	if len(limits) > concurrencyMax {
		c.refuse("at most %d limits", concurrencyMax)
	}
	type counted struct {
		key   string
		scope stepwellv1.Concurrency_Scope
		hold  stepwellv1.Concurrency_Hold
	}
	seen := map[counted]bool{}
	var messages []*stepwellv1.Concurrency
	for _, limit := range limits {
		one := &stepwellv1.Concurrency{
			Limit: c.count("Limit", limit.Limit, 1, countMax), Key: c.expression(limit.Key),
			Scope: choice(c, "Scope", limit.Scope, scopes), Hold: choice(c, "Hold", limit.Hold, holds),
		}
		runs := counted{one.Key, one.Scope, one.Hold}
		if seen[runs] {
			c.refuse("two limits count the same runs")
		}
		seen[runs] = true
		messages = append(messages, one)
	}
	return messages
}

func (c *flowCheck) count(field string, value, least, most int) uint32 {
	if value < least || value > most {
		c.refuse("%s %d is not a whole number from %d to %d", field, value, least, most)
		return 0
	}
	return uint32(value)
}

func (c *flowCheck) span(field string, value time.Duration, leastMs int64) uint64 {
	ms := toMs(value)
	if ms < leastMs || value > durationMax {
		c.refuse("%s %s is not %d ms to 366 days", field, value, leastMs)
		return 0
	}
	return uint64(ms)
}

func (c *flowCheck) expression(text string) string {
	switch {
	case len(text) > keyExpressionBytesMax:
		c.refuse("an expression is at most %d bytes", keyExpressionBytesMax)
	case !utf8.ValidString(text):
		c.refuse("%q is not a CEL expression", text)
	}
	return text
}

// chosen is a choice of an option and its value on the wire; the first one stands for the empty name.
type chosen[Name ~string, Value any] struct {
	name  Name
	value Value
}

var (
	scopes = []chosen[Scope, stepwellv1.Concurrency_Scope]{
		{ScopeFunction, stepwellv1.Concurrency_SCOPE_FUNCTION}, {ScopeApp, stepwellv1.Concurrency_SCOPE_APP},
		{ScopeEnvironment, stepwellv1.Concurrency_SCOPE_ENVIRONMENT},
	}
	holds = []chosen[Hold, stepwellv1.Concurrency_Hold]{
		{HoldExecuting, stepwellv1.Concurrency_HOLD_EXECUTING}, {HoldRun, stepwellv1.Concurrency_HOLD_RUN},
	}
	modes = []chosen[Mode, stepwellv1.Singleton_Mode]{
		{ModeSkip, stepwellv1.Singleton_MODE_SKIP}, {ModeCancel, stepwellv1.Singleton_MODE_CANCEL},
	}
)

func choice[Name ~string, Value any](c *flowCheck, field string, given Name, choices []chosen[Name, Value]) Value {
	known := ""
	for _, one := range choices {
		if given == one.name || given == "" {
			return one.value
		}
		known += ", " + string(one.name)
	}
	c.refuse("%s %q is none of %s", field, given, known[len(", "):])
	return choices[0].value
}
