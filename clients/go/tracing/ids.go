// The ids of a run's span, derived from the run's.

package tracing

import (
	"context"
	"crypto/rand"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/crypto/blake2b"
)

// derived is the key under which a context names the run whose span is begun.
type derived struct{}

// Generator gives the span of a run its derived ids, and all others random ones.
type Generator struct{}

// IDs is for sdktrace.WithIDGenerator.
func IDs() Generator { return Generator{} }

// NewIDs gives those of a span without a parent.
func (g Generator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	var id trace.TraceID
	if runID, ok := ctx.Value(derived{}).(string); ok {
		copy(id[:], digest(16, runID+"\x00trace"))
	} else {
		random(id[:])
	}
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID gives that of a span in a trace.
func (Generator) NewSpanID(ctx context.Context, _ trace.TraceID) (id trace.SpanID) {
	if runID, ok := ctx.Value(derived{}).(string); ok {
		copy(id[:], digest(8, runID+"\x00span"))
	} else {
		random(id[:])
	}
	return id
}

// random fills an id; crypto/rand does not fail.
func random(id []byte) { _, _ = rand.Read(id) }

func digest(size int, text string) []byte {
	hash, err := blake2b.New(size, nil)
	if err != nil {
		panic(err) // the sizes are constants between 1 and 64
	}
	hash.Write([]byte(text))
	return hash.Sum(nil)
}
