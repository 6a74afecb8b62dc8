// What a tracer is asked for: the spans of runs and of the attempts of their steps. Package tracing has OpenTelemetry's.

package stepwell

import (
	"context"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// Tracer makes the spans of a worker, and names the current span in what a client sends.
type Tracer interface {
	// Carry writes the span that is current in ctx into the metadata of what is sent.
	Carry(ctx context.Context, metadata map[string]string)
	// Run finds the place of a run in its trace.
	Run(run TracedRun) RunTrace
}

// TracedRun is what a tracer knows of a run.
type TracedRun struct {
	RunID    string
	App      string
	Function string
	// Created is when the run was created, by the server's clock; Now is the time by the same.
	Created time.Time
	Now     func() time.Time
	// Invoked tells that the run was invoked; Causes are the metadata of the invoke, else of the events that started it.
	Invoked bool
	Causes  []map[string]string
}

// RunTrace is the place of one run in its trace.
type RunTrace interface {
	// Carry writes the run's span into the metadata of what the run sends or invokes.
	Carry(metadata map[string]string)
	// Attempt begins the span of an attempt of a step; it is current in the context, and ends with the function.
	Attempt(ctx context.Context, key string, attempt int) (context.Context, func(error))
	// End makes the span of the run, once its end is durable: "completed", "failed" with the failure, or "cancelled".
	End(status, failure string)
}

// Tracing has spans made: of a client for what it sends, of a worker for what it executes.
func Tracing(tracer Tracer) TracingOption { return TracingOption{tracer} }

// TracingOption is made by Tracing.
type TracingOption struct{ tracer Tracer }

func (o TracingOption) applyClient(s *clientSettings) { s.tracer = o.tracer }
func (o TracingOption) applyWorker(s *workerSettings) { s.tracer = o.tracer }

// ending is what a run's span says of its end. status is empty where the code is to run again.
type ending struct{ status, failure string }

// endingOf tells how the code ended, if this was for good: the server decides by the same policy.
func (r *reentry) endingOf(c command) ending {
	switch c := c.(type) {
	case *stepwellv1.Complete:
		return ending{status: "completed"}
	case *stepwellv1.Cancelled:
		return ending{status: "cancelled"}
	case *stepwellv1.Fail:
		if c.GetFailure().GetNonRetriable() || c.GetAttempt() >= r.fn.policy.GetMaxAttempts() {
			return ending{"failed", c.GetFailure().GetType() + ": " + c.GetFailure().GetMessage()}
		}
	}
	return ending{}
}

// traceOf is the place of an assigned run in its trace.
func (h *host) traceOf(fn *definition, assign *stepwellv1.Assign) RunTrace {
	run := TracedRun{
		RunID: assign.GetRunId(), App: h.app.name, Function: fn.name, Created: fromMs(assign.GetCreatedMs()),
		Now:     func() time.Time { return time.Now().Add(time.Duration(h.aheadMs.Load()) * time.Millisecond) },
		Invoked: assign.GetEvent().GetName() == invoked,
	}
	events := assign.GetEvents()
	if len(events) == 0 {
		events = []*stepwellv1.Event{assign.GetEvent()}
	}
	for _, event := range events {
		run.Causes = append(run.Causes, event.GetMetadata())
	}
	return h.tracer.Run(run)
}

// carried is the metadata with the current span in it, where there is a tracer.
func carried(tracer Tracer, ctx context.Context, metadata map[string]string) map[string]string {
	if tracer == nil {
		return metadata
	}
	if metadata == nil {
		metadata = map[string]string{}
	}
	tracer.Carry(ctx, metadata)
	return metadata
}
