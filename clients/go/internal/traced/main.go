// Command traced is the middle of a trace over three languages: each span becomes a line of JSON in the file SPANS.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	sw "stepwell.example/stepwell"
	"stepwell.example/stepwell/tracing"
)

// lines appends at once, so that a kill loses none.
type lines struct{ path string }

func (l lines) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	for _, span := range spans {
		parent := ""
		if span.Parent().IsValid() {
			parent = span.Parent().SpanID().String()
		}
		attributes := map[string]any{}
		for _, one := range span.Attributes() {
			attributes[string(one.Key)] = one.Value.AsInterface()
		}
		line, err := json.Marshal(map[string]any{
			"name": span.Name(), "trace": span.SpanContext().TraceID().String(), "span": span.SpanContext().SpanID().String(),
			"parent": parent, "attributes": attributes,
		})
		if err != nil {
			return err
		}
		if _, err := file.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

func (lines) Shutdown(context.Context) error { return nil }

func main() {
	provider := sdktrace.NewTracerProvider(sdktrace.WithIDGenerator(tracing.IDs()), sdktrace.WithSyncer(lines{os.Getenv("SPANS")}))
	body := func(context.Context) (string, error) { return "go", nil }
	pass := sw.Function("pass", sw.On(), func(ctx sw.Context, event sw.Event[[]string]) ([]string, error) {
		said, err := sw.Run(ctx, "reserve", body)
		if err != nil {
			return nil, err
		}
		return sw.Invoke[[]string](ctx, "last/ship", append(event.Data, said))
	})
	log.Fatal(sw.NewApp("middle", pass).Run(sw.Tracing(tracing.New(provider))))
}
