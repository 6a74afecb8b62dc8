// Executes the bodies of steps, each in a goroutine: times them out, interrupts them, and turns panics into errors.

package stepwell

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// bodyStuckAfter is how long a body may go on after its interruption before the log names it.
const bodyStuckAfter = 10 * time.Second

// errInterrupted is the cause of a body's context when its run was cancelled, its step given up, or its run has left.
var errInterrupted = errors.New("the step was given up: its run was cancelled or is no longer this worker's")

// bodies are all those of a worker.
type bodies struct {
	base  context.Context // of their contexts
	nowMs func() int64
	log   *slog.Logger
	// executing counts bodies whose code has not ended, interrupted ones included.
	executing atomic.Int64
}

// attempt is one execution of a body.
type attempt struct {
	body      *bodyCall
	interrupt context.CancelCauseFunc
	// What it made, once it has ended.
	value     any
	err       error
	startedMs int64
	endedMs   int64
	leave     func(error) // ends its span, if it has one

	mu    sync.Mutex
	stuck *time.Timer // fires when it goes on for long after its interruption
	ended bool
}

// start begins a body. ended is called in the body's goroutine when its code has really ended: a body that ignores its
// context keeps its run waiting, interrupted or timed out as it may be.
func (b *bodies) start(body *bodyCall, ended func(*attempt)) *attempt {
	ctx, interrupt := context.WithCancelCause(withBody(b.base, body))
	a := &attempt{body: body, interrupt: interrupt, err: errGoexit}
	b.executing.Add(1)
	go b.execute(ctx, a, ended)
	return a
}

func (b *bodies) execute(ctx context.Context, a *attempt, ended func(*attempt)) {
	if limit := a.body.timeout; limit > 0 {
		timeout := timeoutError(a.body.key, fmt.Sprintf("the body took longer than %d ms", limit.Milliseconds()))
		limited, stop := context.WithTimeoutCause(ctx, limit, timeout)
		context.AfterFunc(limited, func() { b.watch(a) })
		ctx = limited
		defer stop()
	}
	defer func() {
		if panicked := recover(); panicked != nil {
			a.value, a.err = nil, &PanicError{Value: panicked, Stack: string(debug.Stack())}
		}
		b.end(ctx, a)
		ended(a)
	}()
	if a.body.trace != nil {
		ctx, a.leave = a.body.trace.Attempt(ctx, a.body.key, int(a.body.attempt))
	}
	a.startedMs = b.nowMs()
	a.value, a.err = a.body.fn(ctx)
}

func (b *bodies) end(ctx context.Context, a *attempt) {
	a.endedMs = b.nowMs()
	a.mu.Lock()
	a.ended = true
	if a.stuck != nil {
		a.stuck.Stop()
	}
	a.mu.Unlock()
	var timeout *StepError
	if errors.As(context.Cause(ctx), &timeout) {
		a.value, a.err = nil, timeout
	}
	if a.leave != nil {
		a.leave(a.err)
	}
	a.interrupt(context.Canceled)
	b.executing.Add(-1)
}

// drop interrupts a body; what it makes is heard by nobody.
func (b *bodies) drop(a *attempt) {
	a.interrupt(errInterrupted)
	b.watch(a)
}

// watch names a body in the log if it goes on for long after its interruption.
func (b *bodies) watch(a *attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended || a.stuck != nil {
		return
	}
	a.stuck = time.AfterFunc(bodyStuckAfter, func() {
		b.log.Warn("a body goes on though it was interrupted; it should heed its context",
			"run_id", a.body.runID, "key", a.body.key, "interrupted", bodyStuckAfter)
	})
}
