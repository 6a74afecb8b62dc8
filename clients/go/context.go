// Context of a function's code, and what a body knows of its step.

package stepwell

import (
	"context"
	"encoding/hex"

	"golang.org/x/crypto/blake2b"
)

// Context is given to a function's code and to each branch of a Group; steps are made with it. It is done when the run is
// cancelled, when its branch is given up, and when the code ends. It belongs to one goroutine, and is none of a body's: a body
// has a plain context.Context of its own.
type Context interface {
	context.Context
	fiber() *fiber
}

type runContext struct {
	context.Context
	owner *fiber
	stop  context.CancelCauseFunc
}

func (c *runContext) fiber() *fiber { return c.owner }

func newRunContext(base context.Context, owner *fiber) *runContext {
	ctx, stop := context.WithCancelCause(base)
	return &runContext{ctx, owner, stop}
}

// RunInfo is what a function's code may know of its run.
type RunInfo struct {
	RunID      string
	FunctionID string
	// Attempt of the function, from 1.
	Attempt int
}

// Info tells which run this is, and which attempt of its function.
func Info(ctx Context) RunInfo {
	r := ctx.fiber().core
	return RunInfo{r.runID, r.fn.id, int(r.journal.functionAttempt)}
}

// StepInfo is the step whose body executes.
type StepInfo struct {
	RunID string
	Key   string
	// Attempt counts from 1; LastError is the failure of the attempt before, nil at the first.
	Attempt   int
	LastError *Failure
	// Token is the same for every attempt of this step: an idempotency key for the services that the body calls.
	Token string
}

type bodyKey struct{}

// CurrentStep is the step whose body was given this context; the zero StepInfo elsewhere.
func CurrentStep(ctx context.Context) StepInfo {
	body, ok := ctx.Value(bodyKey{}).(*bodyCall)
	if !ok {
		return StepInfo{}
	}
	return StepInfo{
		RunID: body.runID, Key: body.key, Attempt: int(body.attempt), LastError: failureFrom(body.lastError), Token: token(body.runID, body.key),
	}
}

// withBody lets CurrentStep find the body. What few bodies ask for, such as the token, is made when they do.
func withBody(ctx context.Context, body *bodyCall) context.Context {
	return context.WithValue(ctx, bodyKey{}, body)
}

// token is derived from run and key, so that every attempt, worker and language gets the same.
func token(runID, key string) string { return hex.EncodeToString(blake2(16, []byte(runID+"\x00"+key))) }

// blake2 is the BLAKE2b digest of this many bytes.
func blake2(size int, data []byte) []byte {
	digest, err := blake2b.New(size, nil)
	if err != nil {
		panic(err) // the sizes are constants between 1 and 64
	}
	digest.Write(data)
	return digest.Sum(nil)
}
