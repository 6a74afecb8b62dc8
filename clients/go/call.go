// A step call: what the code waits for, and what the core knows of its key.

package stepwell

import (
	"context"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// call is made by the functions of step.go; the core gives it its key and begins the step before the code waits (H5).
type call struct {
	fiber  *fiber
	seq    uint64 // order of the calls
	kind   stepwellv1.StepKind
	target string
	key    string
	// openKey is the key under which the server holds it open: its own, or "key#attempt" while it backs off.
	openKey string
	hash    []byte
	command command
	// read puts the data of the outcome where the caller of the step wants it.
	read func(data []byte) error
	err  error

	// Of bodies.
	body      func(context.Context) (any, error)
	args      []any
	policy    *stepwellv1.RetryPolicy
	timeout   time.Duration
	attempt   uint32
	lastError *stepwellv1.Failure
	need      uint64 // the number that must be acknowledged before the body begins
}

// deliver resolves the call with what the server or the journal says.
func (c *call) deliver(outcome *stepwellv1.Outcome) {
	if failure := outcome.GetFailure(); failure != nil {
		if c.kind == kindInvoke {
			c.err = invokeError(failure, c.key, outcome.GetAttempt())
		} else {
			c.err = stepError(failure, c.key, outcome.GetAttempt())
		}
		return
	}
	data, err := payloadData(outcome.GetOutput(), "the outcome of step "+c.key)
	if err != nil {
		c.err = err
		return
	}
	c.err = c.read(data)
}

// roundTrip encodes a result, and gives the code what it will see in replay too: the decoded one (H2).
func (c *call) roundTrip(value any, resultBytes uint32) ([]byte, error) {
	what := "the result of step " + c.key
	data, err := encode(value, what)
	if err != nil {
		return nil, err
	}
	if resultBytes > 0 && len(data) > int(resultBytes) {
		return nil, limitError("%s has %d bytes; result_bytes is %d", what, len(data), resultBytes)
	}
	return data, c.read(data)
}

// bodyCall is a body that the host executes now. Its end is reported with reentry.finish(key, attempt, …).
type bodyCall struct {
	runID     string
	key       string
	attempt   uint32
	lastError *stepwellv1.Failure
	args      []any
	fn        func(context.Context) (any, error)
	timeout   time.Duration
	trace     RunTrace // nil: nothing is traced
}
