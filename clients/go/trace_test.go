// The spans of a worker, and what a client hands on.

package stepwell_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	sw "stepwell.example/stepwell"
	"stepwell.example/stepwell/tracing"
	stepwellv1 "stepwell.example/stepwell/v1"
)

const cause = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func traced(t *testing.T, opts ...sdktrace.TracerProviderOption) (*sdktrace.TracerProvider, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	opts = append(opts, sdktrace.WithIDGenerator(tracing.IDs()), sdktrace.WithSpanProcessor(recorder))
	provider := sdktrace.NewTracerProvider(opts...)
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return provider, recorder
}

// spans are those that have ended, by name, once the named one is among them.
func spans(t *testing.T, recorder *tracetest.SpanRecorder, awaited string) map[string]sdktrace.ReadOnlySpan {
	t.Helper()
	var found map[string]sdktrace.ReadOnlySpan
	end := time.Now().Add(within)
	for found[awaited] == nil {
		if time.Now().After(end) {
			t.Fatal("no span", awaited, recorder.Ended())
		}
		time.Sleep(time.Millisecond) // a recorder says nothing when it is given a span
		found = map[string]sdktrace.ReadOnlySpan{}
		for _, span := range recorder.Ended() {
			if found[span.Name()] != nil {
				t.Fatal("twice", span.Name())
			}
			found[span.Name()] = span
		}
	}
	return found
}

// vectors are the derived ids of run_1, as the protocol says.
func vectors(t *testing.T) (traceID, spanID string) {
	t.Helper()
	page, err := os.ReadFile("../../proto/README.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `run_1` \\| `([0-9a-f]{32})` \\| `([0-9a-f]{16})` \\|$").FindSubmatch(page)
	return string(row[1]), string(row[2])
}

func tracedApp(provider trace.TracerProvider) *sw.App {
	inner := func(ctx context.Context) (int, error) {
		_, span := provider.Tracer("user").Start(ctx, "inner")
		defer span.End()
		return 1, nil
	}
	two := func(ctx sw.Context, _ sw.Event[any]) (int, error) {
		one, err := sw.Run(ctx, "first", inner)
		if err != nil {
			return 0, err
		}
		return one, sw.Sleep(ctx, 1)
	}
	breaks := func(ctx sw.Context, _ sw.Event[any]) (any, error) {
		return sw.Run(ctx, "charge", func(context.Context) (any, error) { return nil, sw.NonRetriable(errors.New("no such card")) })
	}
	again := func(sw.Context, sw.Event[any]) (any, error) { return nil, errors.New("at first") }
	sends := func(ctx sw.Context, _ sw.Event[any]) (any, error) {
		own := map[string]string{"traceparent": cause}
		if _, err := sw.SendEvents(ctx, []sw.NewEvent{{Name: "a"}, {Name: "b", Metadata: own}}); err != nil {
			return nil, err
		}
		return sw.Invoke[any](ctx, "other/f", 1)
	}
	return sw.NewApp("test", sw.Function("two", sw.On(), two), sw.Function("breaks", sw.On(), breaks),
		sw.Function("again", sw.On(), again), sw.Function("sends", sw.On(), sends))
}

func TestARunIsASpanAndItsAttemptsHangUnderIt(t *testing.T) {
	provider, recorder := traced(t)
	s := newFakeServer(t)
	working(t, s, tracedApp(provider), sw.Tracing(tracing.New(provider)))
	l := s.link()
	l.assign("run_1", "two", 1)
	l.waitFor(has((*stepwellv1.Commands).GetParks))
	if ended := recorder.Ended(); len(ended) != 2 || ended[1].Name() != "first" {
		t.Fatal("while it sleeps no span of the run has ended", ended)
	}
	l.work(&stepwellv1.Work{Outcomes: []*stepwellv1.Outcome{{RunId: "run_1", Turn: 1, Key: "sleep", Kind: stepwellv1.StepKind_STEP_KIND_SLEEP}}})
	found := spans(t, recorder, "test/two")
	root, first, inner := found["test/two"], found["first"], found["inner"]
	traceID, spanID := vectors(t)
	if got := root.SpanContext(); got.TraceID().String() != traceID || got.SpanID().String() != spanID || root.Parent().IsValid() {
		t.Fatal(got, root.Parent())
	}
	if first.Parent().SpanID() != root.SpanContext().SpanID() || inner.Parent().SpanID() != first.SpanContext().SpanID() {
		t.Fatal(first.Parent(), inner.Parent())
	}
	if inner.SpanContext().TraceID() != root.SpanContext().TraceID() || len(found) != 3 {
		t.Fatal(found)
	}
	shared := map[attribute.Key]string{"stepwell.run_id": "run_1", "stepwell.app": "test", "stepwell.function": "two"}
	sees(t, root, shared, map[attribute.Key]string{"stepwell.status": "completed"})
	sees(t, first, shared, map[attribute.Key]string{"stepwell.step": "first", "stepwell.attempt": "1"})
}

func sees(t *testing.T, span sdktrace.ReadOnlySpan, wanted ...map[attribute.Key]string) {
	t.Helper()
	got := map[attribute.Key]string{}
	for _, one := range span.Attributes() {
		got[one.Key] = one.Value.Emit()
	}
	count := 0
	for _, attributes := range wanted {
		for key, value := range attributes {
			count++
			if got[key] != value {
				t.Error(span.Name(), key, got[key], value)
			}
		}
	}
	if len(got) != count {
		t.Error(span.Name(), got)
	}
}

func TestAFailedRunHasItsErrorAndOneThatIsTriedAgainNoSpan(t *testing.T) {
	provider, recorder := traced(t)
	s := newFakeServer(t)
	working(t, s, tracedApp(provider), sw.Tracing(tracing.New(provider)))
	l := s.link()
	l.assign("run_1", "again", 1)
	l.waitFor(has((*stepwellv1.Commands).GetFails))
	l.assign("run_2", "breaks", 1)
	failure := l.waitFor(has((*stepwellv1.Commands).GetFailures)).Failures[0]
	l.work(&stepwellv1.Work{Outcomes: []*stepwellv1.Outcome{{
		RunId: "run_2", Turn: 1, Key: "charge", Kind: stepwellv1.StepKind_STEP_KIND_RUN,
		Result: &stepwellv1.Outcome_Failure{Failure: failure.Failure},
	}}})
	found := spans(t, recorder, "test/breaks")
	for _, name := range []string{"charge", "test/breaks"} {
		if status := found[name].Status(); status.Code != codes.Error || !regexp.MustCompile("no such card").MatchString(status.Description) {
			t.Error(name, status)
		}
	}
	if events := found["charge"].Events(); len(events) != 1 || events[0].Name != "exception" {
		t.Error(events)
	}
	if len(found) != 2 {
		t.Error(found)
	}
}

func TestAnInvokeIsAChildOfItsCauseAndAnEventIsLinkedToIt(t *testing.T) {
	for name, invoked := range map[string]bool{"stepwell/function.invoked": true, "user/came": false} {
		t.Run(name, func(t *testing.T) {
			provider, recorder := traced(t)
			s := newFakeServer(t)
			working(t, s, tracedApp(provider), sw.Tracing(tracing.New(provider)))
			l := s.link()
			assign := assignOf("run_1", "sends", 1)
			assign.Event = &stepwellv1.Event{Name: name, Metadata: map[string]string{"traceparent": cause}}
			l.work(&stepwellv1.Work{Assigns: []*stepwellv1.Assign{assign}})
			sends := l.waitFor(has((*stepwellv1.Commands).GetSends)).Sends[0]
			traceID, spanID := vectors(t)
			if invoked {
				traceID = cause[3:35]
			}
			run := fmt.Sprintf("00-%s-%s-01", traceID, spanID)
			if sends.Events[0].Metadata["traceparent"] != run || sends.Events[1].Metadata["traceparent"] != cause {
				t.Error(sends.Events, run)
			}
			l.work(&stepwellv1.Work{Outcomes: []*stepwellv1.Outcome{{
				RunId: "run_1", Turn: 1, Key: "send_events", Kind: stepwellv1.StepKind_STEP_KIND_SEND,
				Result: &stepwellv1.Outcome_Output{Output: &stepwellv1.Payload{Data: []byte(`["1","2"]`)}},
			}}})
			if invoke := l.waitFor(has((*stepwellv1.Commands).GetInvokes)).Invokes[0]; invoke.Metadata["traceparent"] != run {
				t.Error(invoke)
			}
			l.work(&stepwellv1.Work{Outcomes: []*stepwellv1.Outcome{{
				RunId: "run_1", Turn: 1, Key: "other/f", Kind: stepwellv1.StepKind_STEP_KIND_INVOKE,
				Result: &stepwellv1.Outcome_Output{Output: &stepwellv1.Payload{Data: []byte("1")}},
			}}})
			root := spans(t, recorder, "test/sends")["test/sends"]
			if invoked && (root.Parent().SpanID().String() != cause[36:52] || len(root.Links()) != 0) {
				t.Error(root.Parent(), root.Links())
			}
			if !invoked && (root.Parent().IsValid() || len(root.Links()) != 1 || root.Links()[0].SpanContext.SpanID().String() != cause[36:52]) {
				t.Error(root.Parent(), root.Links())
			}
		})
	}
}

func TestACauseWithFlagsOfALaterVersionIsOneAndWhatIsNoContextIsNone(t *testing.T) {
	run := func(text string) sdktrace.ReadOnlySpan {
		provider, recorder := traced(t)
		tracing.New(provider).Run(sw.TracedRun{
			RunID: "run_1", Now: time.Now, Invoked: true, Causes: []map[string]string{{"traceparent": text}},
		}).End("completed", "")
		return recorder.Ended()[0]
	}
	for _, flags := range []string{"01", "03"} {
		if root := run(cause[:53] + flags); root.Parent().SpanID().String() != cause[36:52] || !root.Parent().IsSampled() {
			t.Error(flags, root.Parent())
		}
	}
	for _, text := range []string{"", "00-00-00-01", cause[:53] + "zz", "00-00000000000000000000000000000000-b7ad6b7169203331-01"} {
		if root := run(text); root.Parent().IsValid() {
			t.Error(text, root.Parent())
		}
	}
}

func TestARunThatIsNotSampledSaysSo(t *testing.T) {
	provider, recorder := traced(t, sdktrace.WithSampler(sdktrace.NeverSample()))
	s := newFakeServer(t)
	working(t, s, tracedApp(provider), sw.Tracing(tracing.New(provider)))
	l := s.link()
	l.assign("run_1", "sends", 1)
	traceID, spanID := vectors(t)
	sends := l.waitFor(has((*stepwellv1.Commands).GetSends)).Sends[0]
	if got := sends.Events[0].Metadata["traceparent"]; got != fmt.Sprintf("00-%s-%s-00", traceID, spanID) {
		t.Error(got)
	}
	if ended := recorder.Ended(); len(ended) != 0 {
		t.Error(ended)
	}
}

func TestAClientHandsTheCurrentSpanOn(t *testing.T) {
	provider, _ := traced(t)
	s, client := newServices(t, sw.Tracing(tracing.New(provider)))
	ctx, span := provider.Tracer("test").Start(context.Background(), "request")
	own := map[string]string{"traceparent": cause}
	if _, err := client.SendMany(ctx, []sw.NewEvent{{Name: "a"}, {Name: "b", Metadata: own}}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := client.SendMany(context.Background(), []sw.NewEvent{{Name: "c"}}, ""); err != nil {
		t.Fatal(err)
	}
	here := fmt.Sprintf("00-%s-%s-01", span.SpanContext().TraceID(), span.SpanContext().SpanID())
	if got := s.sent[0].Events; got[0].Metadata["traceparent"] != here || got[1].Metadata["traceparent"] != cause {
		t.Error(got)
	}
	if got := s.sent[1].Events[0].Metadata; len(got) != 0 {
		t.Error(got)
	}
}
