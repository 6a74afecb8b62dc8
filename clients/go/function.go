// Functions and apps: what is declared, what is refused, and what a worker registers.

package stepwell

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const (
	conditionBytesMax = 2048
	triggersMax       = 10
)

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// Trigger starts a function when an event of this name fits the condition, which is CEL over event; an empty one fits
// always. A trailing * in the name matches any rest.
type Trigger struct {
	Event string
	If    string
}

// Triggers of a function. It runs once for an event that several of them fit.
type Triggers []Trigger

// On names the events that start a function; none: it is only invoked.
func On(events ...string) Triggers {
	var triggers Triggers
	for _, event := range events {
		triggers = append(triggers, Trigger{Event: event})
	}
	return triggers
}

// If adds a condition to each of the triggers.
func (t Triggers) If(condition string) Triggers {
	triggers := slices.Clone(t)
	for i := range triggers {
		triggers[i].If = condition
	}
	return triggers
}

// Func is a declared function; an App registers it.
type Func[In, Out any] struct{ definition *definition }

// definition is a function without its types.
type definition struct {
	name     string
	triggers Triggers
	policy   *stepwellv1.RetryPolicy
	strict   bool
	// Its time-outs; 0: none.
	timeoutMs, startTimeoutMs uint64

	err error // what is wrong with the declaration
	// JSON Schemas as JSON text; empty: anything.
	inputSchema, outputSchema []byte
	// What limits, gathers and orders its runs; nil: nothing does.
	flow   *stepwellv1.Flow
	labels Labels

	// prepare reads the event of a run, and those that were gathered for it; the code it answers is called once.
	prepare func(event *stepwellv1.Event, gathered []*stepwellv1.Event) (func(Context) (any, error), error)

	app string // "" until an App took it
	id  string // "app/name"
}

// Declared is a function of any types, as App takes it.
type Declared interface{ declared() *definition }

func (f *Func[In, Out]) declared() *definition { return f.definition }

// Function declares a function: its name, what starts it, its code, and options. The event's data is In: for an invoked
// function that is its input. The server refuses what does not fit the JSON Schema of In, which is derived from the type: a
// field with a name in its json tag is required unless it is omitempty, omitzero or a pointer. Errors of the declaration are those of NewApp.
func Function[In, Out any](name string, on Triggers, code func(ctx Context, event Event[In]) (Out, error), opts ...FunctionOption) *Func[In, Out] {
	d := declare[In, Out](name, on, nil, code != nil, opts)
	d.prepare = func(message *stepwellv1.Event, _ []*stepwellv1.Event) (func(Context) (any, error), error) {
		event, err := eventFrom[In](message)
		if err != nil {
			return nil, err
		}
		return func(ctx Context) (any, error) { return code(ctx, event) }, nil
	}
	return &Func[In, Out]{d}
}

// BatchFunction declares a function whose runs take many events each, as many as the server gathered, in an order that is the
// same each time the code is entered. In is the data of one of them. A run that was invoked, or that one event started alone, takes one.
func BatchFunction[In, Out any](
	name string, on Triggers, batch Batch, code func(ctx Context, events []Event[In]) (Out, error), opts ...FunctionOption,
) *Func[In, Out] {
	d := declare[In, Out](name, on, &batch, code != nil, opts)
	d.prepare = func(message *stepwellv1.Event, gathered []*stepwellv1.Event) (func(Context) (any, error), error) {
		if len(gathered) == 0 {
			gathered = []*stepwellv1.Event{message}
		}
		events := make([]Event[In], len(gathered))
		for i, one := range gathered {
			var err error
			if events[i], err = eventFrom[In](one); err != nil {
				return nil, err
			}
		}
		return func(ctx Context) (any, error) { return code(ctx, events) }, nil
	}
	return &Func[In, Out]{d}
}

// declare is what all kinds of functions have in common.
func declare[In, Out any](name string, on Triggers, batch *Batch, hasCode bool, opts []FunctionOption) *definition {
	var options functionOptions
	for _, opt := range opts {
		opt.applyFunction(&options)
	}
	options.flow.batch = batch
	d := &definition{name: name, strict: options.strict, labels: options.labels}
	d.triggers, d.policy, d.err = checkDeclaration(name, on, options.retry, hasCode)
	d.timeoutMs = d.limit("Timeout", options.timeout)
	d.startTimeoutMs = d.limit("StartTimeout", options.startTimeout)
	d.inputSchema, d.outputSchema = schemaOf(reflect.TypeFor[In](), false), schemaOf(reflect.TypeFor[Out](), true)
	if options.inputSchema != nil {
		d.inputSchema = d.given(*options.inputSchema)
	}
	flow, err := options.flow.message()
	d.flow = flow
	d.note(err)
	d.note(options.labels.check())
	return d
}

// note keeps the first thing that is wrong with an option.
func (d *definition) note(err error) {
	if err != nil && d.err == nil {
		d.err = registrationError("function %s: %v", d.name, err)
	}
}

// limit is the milliseconds of a time-out of the function; 0 if it has none.
func (d *definition) limit(option string, limit *time.Duration) uint64 {
	if limit == nil {
		return 0
	}
	err := checkDuration(option, *limit)
	if err == nil && *limit == 0 {
		err = fmt.Errorf("%s: it must be longer than zero", option)
	}
	if err == nil {
		return uint64(toMs(*limit))
	}
	if d.err == nil {
		d.err = registrationError("function %s, %v", d.name, err)
	}
	return 0
}

// given is the schema of an option.
func (d *definition) given(text string) []byte {
	given, err := givenSchema(text)
	if err != nil && d.err == nil {
		d.err = registrationError("function %s, %v", d.name, err)
	}
	return given
}

// ID is "app/name"; empty until an App has the function.
func (f *Func[In, Out]) ID() string { return f.definition.id }

// Invoke runs the function from another one's code, as the function Invoke does.
func (f *Func[In, Out]) Invoke(ctx Context, input In, opts ...InvokeOption) (Out, error) {
	target := f.ID()
	if target == "" {
		target = f.definition.name
	}
	return Invoke[Out](ctx, target, input, opts...)
}

func checkDeclaration(name string, on Triggers, retry Retry, hasCode bool) (Triggers, *stepwellv1.RetryPolicy, error) {
	if err := checkNameOf("function", name); err != nil {
		return nil, nil, err
	}
	refuse := func(err error) error { return registrationError("function %s: %v", name, err) }
	if !hasCode {
		return nil, nil, refuse(errors.New("it has no code"))
	}
	policy, err := retry.policy()
	if err != nil {
		return nil, nil, refuse(err)
	}
	var triggers Triggers
	for _, trigger := range on {
		if err := checkEventName(trigger.Event, true); err != nil {
			return nil, nil, refuse(err)
		}
		if len(trigger.If) > conditionBytesMax {
			return nil, nil, refuse(fmt.Errorf("the condition of %q is longer than %d bytes", trigger.Event, conditionBytesMax))
		}
		if !slices.Contains(triggers, trigger) {
			triggers = append(triggers, trigger)
		}
	}
	if len(triggers) > triggersMax {
		return nil, nil, refuse(fmt.Errorf("it has %d triggers; at most %d are allowed", len(triggers), triggersMax))
	}
	return triggers, policy, nil
}

func checkNameOf(what, name string) error {
	if !validName.MatchString(name) {
		return registrationError("%s name %q must be 1 to 128 letters, digits, '-', '_' or '.' of ASCII, and begin with a "+
			"letter or digit", what, name)
	}
	return nil
}

func registrationError(format string, args ...any) *Error {
	return &Error{Reason: reasonRegistration, Message: fmt.Sprintf(format, args...)}
}

// App is functions that one worker serves under one name.
type App struct {
	name      string
	functions map[string]*definition
	order     []*definition
	err       error
}

// NewApp takes functions. What is wrong with a declaration, an ErrRegistration, is what Run and Serve return.
func NewApp(name string, functions ...Declared) *App {
	app := &App{name: name, functions: map[string]*definition{}, err: checkNameOf("app", name)}
	for _, function := range functions {
		d := function.declared()
		app.note(d.err)
		if app.functions[d.name] != nil {
			app.note(registrationError("function %s: app %s has a function of this name already", d.name, name))
			continue
		}
		app.note(d.join(name))
		app.functions[d.name] = d
		app.order = append(app.order, d)
	}
	return app
}

// note keeps the first error.
func (a *App) note(err error) {
	if a.err == nil {
		a.err = err
	}
}

func (d *definition) join(app string) error {
	if d.app != "" && d.app != app {
		return registrationError("function %s belongs to app %s; it cannot be one of %s too", d.name, d.app, app)
	}
	d.app, d.id = app, app+"/"+d.name
	return nil
}

// specs are what a worker registers.
func (a *App) specs() []*stepwellv1.FunctionSpec {
	var specs []*stepwellv1.FunctionSpec
	for _, d := range a.order {
		spec := &stepwellv1.FunctionSpec{
			Name: d.name, Retry: d.policy, Strict: d.strict, TimeoutMs: d.timeoutMs, StartTimeoutMs: d.startTimeoutMs,
			InputSchema: d.inputSchema, OutputSchema: d.outputSchema, Flow: d.flow, Labels: d.labels,
		}
		for _, trigger := range d.triggers {
			spec.Triggers = append(spec.Triggers, &stepwellv1.Trigger{Event: trigger.Event, Condition: trigger.If, Schema: d.inputSchema})
		}
		specs = append(specs, spec)
	}
	return specs
}
