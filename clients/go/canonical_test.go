// What strict mode hashes. That other languages make the same of it is what transcripts show.

package stepwell_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	sw "stepwell.example/stepwell"
)

func TestAnInputThatStrictModeCannotHashIsASerializationError(t *testing.T) {
	deep := json.RawMessage(strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000))
	for name, input := range map[string]any{"a function": func() {}, "one too deep": deep} {
		core := start(t, newEnv(t, sw.NewApp("test", sw.Function("main", sw.On(), func(ctx sw.Context, _ sw.Event[any]) (bool, error) {
			err := do(ctx, "a", input)
			return errors.Is(err, sw.ErrSerialization), nil
		}, sw.Strict()))), "main", nil)
		var refused bool
		if err := core.Result(&refused); err != nil || !refused {
			t.Errorf("%s: %v %v", name, refused, err)
		}
	}
}
