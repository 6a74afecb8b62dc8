// Package tracing makes spans with OpenTelemetry: one of each run, wherever its code ran, and one of each attempt of a step.
//
//	provider := sdktrace.NewTracerProvider(sdktrace.WithIDGenerator(tracing.IDs()), …)
//	err := app.Run(stepwell.Tracing(tracing.New(provider)))
//
// The ids of a run's span are derived from the run's, so that spans of several workers hang under it before it exists.
package tracing

import (
	"context"
	"fmt"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"stepwell.example/stepwell"
)

const (
	traceparent = "traceparent"
	// metadataBytes is left room for: the trace context must not make metadata too large.
	metadataBytes = 7 * 1024
)

var w3c = propagation.TraceContext{}

// New is a tracer for stepwell.Tracing. The provider needs the generator that IDs gives.
func New(provider trace.TracerProvider) stepwell.Tracer {
	return tracer{provider.Tracer("stepwell")}
}

type tracer struct{ trace.Tracer }

func (t tracer) Carry(ctx context.Context, metadata map[string]string) {
	size := 0
	for name, value := range metadata {
		size += len(name) + len(value)
	}
	if _, given := metadata[traceparent]; !given && size < metadataBytes {
		w3c.Inject(ctx, propagation.MapCarrier(metadata))
	}
}

func (t tracer) Run(run stepwell.TracedRun) stepwell.RunTrace {
	r := &runTrace{tracer: t, run: run, base: context.Background(), attributes: []attribute.KeyValue{
		attribute.String("stepwell.run_id", run.RunID),
		attribute.String("stepwell.app", run.App),
		attribute.String("stepwell.function", run.Function),
	}}
	for _, metadata := range run.Causes {
		cause := causeOf(metadata)
		switch {
		case !cause.IsValid():
		case run.Invoked:
			r.base = trace.ContextWithRemoteSpanContext(context.Background(), cause)
		default:
			r.links = append(r.links, trace.Link{SpanContext: cause})
		}
	}
	// Whether it is sampled is for the provider to say: a span that is begun and never ended goes nowhere.
	probe := r.start().SpanContext()
	r.inRun = trace.ContextWithRemoteSpanContext(context.Background(), probe.WithRemote(true))
	return r
}

// causeOf is the span that sent an event or invoked a run. What is no trace context is none.
func causeOf(metadata map[string]string) trace.SpanContext {
	carrier := propagation.MapCarrier{"tracestate": metadata["tracestate"], traceparent: metadata[traceparent]}
	// The propagator takes flags that it does not know for an error; other languages send that the trace id is random.
	if text := metadata[traceparent]; len(text) == 55 && text[:3] == "00-" {
		if flags, err := strconv.ParseUint(text[53:], 16, 8); err == nil {
			carrier[traceparent] = fmt.Sprintf("%s%02x", text[:53], flags&1)
		}
	}
	return trace.SpanContextFromContext(w3c.Extract(context.Background(), carrier))
}

type runTrace struct {
	tracer     tracer
	run        stepwell.TracedRun
	base       context.Context // with the span that invoked the run, if any
	inRun      context.Context // with the run's own
	links      []trace.Link
	attributes []attribute.KeyValue
}

func (r *runTrace) start(more ...attribute.KeyValue) trace.Span {
	_, span := r.tracer.Start(context.WithValue(r.base, derived{}, r.run.RunID), r.run.App+"/"+r.run.Function,
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(r.run.Created), trace.WithLinks(r.links...),
		trace.WithAttributes(append(more, r.attributes...)...))
	return span
}

func (r *runTrace) Carry(metadata map[string]string) { r.tracer.Carry(r.inRun, metadata) }

func (r *runTrace) Attempt(ctx context.Context, key string, attempt int) (context.Context, func(error)) {
	ctx = trace.ContextWithSpan(ctx, trace.SpanFromContext(r.inRun))
	ctx, span := r.tracer.Start(ctx, key, trace.WithTimestamp(r.run.Now()), trace.WithAttributes(append(
		[]attribute.KeyValue{attribute.String("stepwell.step", key), attribute.Int("stepwell.attempt", attempt)},
		r.attributes...)...))
	return ctx, func(err error) {
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, fmt.Sprintf("%T: %v", err, err))
		}
		span.End(trace.WithTimestamp(r.run.Now()))
	}
}

func (r *runTrace) End(status, failure string) {
	span := r.start(attribute.String("stepwell.status", status))
	if failure != "" {
		span.SetStatus(codes.Error, failure)
	}
	span.End(trace.WithTimestamp(r.run.Now()))
}
