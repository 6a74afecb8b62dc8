// Functions about steps, their values, and branches of them.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	sw "stepwell.example/stepwell"
)

const (
	hour   = time.Hour
	lookIn = 10 * time.Millisecond
)

type (
	fields  = map[string]any
	waiting struct {
		Event string
	}
)

// note is a step whose body ends at once.
func note[T any](ctx sw.Context, name string, value T, opts ...sw.RunOption) (T, error) {
	return sw.Run(ctx, name, func(ctx context.Context) (T, error) {
		return value, effect(sw.CurrentStep(ctx))
	}, opts...)
}

// hold is a step whose body ends once its gate is open.
func hold[T any](ctx sw.Context, name string, value T, opts ...sw.RunOption) (T, error) {
	return sw.Run(ctx, name, func(ctx context.Context) (T, error) {
		step := sw.CurrentStep(ctx)
		if err := effect(step); err != nil {
			return value, err
		}
		for {
			if _, err := os.Stat(filepath.Join(folder, step.RunID+" "+step.Key)); err == nil {
				return value, nil
			}
			select {
			case <-ctx.Done():
				return value, ctx.Err()
			case <-time.After(lookIn):
			}
		}
	}, opts...)
}

func sequential(ctx sw.Context, event sw.Event[struct{ A, B any }]) (fields, error) {
	a, err := note(ctx, "a", event.Data.A)
	if err != nil {
		return nil, err
	}
	b, err := note(ctx, "b", []any{a, event.Data.B})
	return fields{"a": a, "b": b}, err
}

func echo(ctx sw.Context, event sw.Event[any]) (any, error) {
	return note(ctx, "echo", event.Data)
}

type numbered struct {
	Whole int64   `json:"whole"`
	Real  float64 `json:"real"`
}

func numbers(ctx sw.Context, event sw.Event[numbered]) (result numbered, err error) {
	if result.Whole, err = note(ctx, "whole", event.Data.Whole); err != nil {
		return result, err
	}
	result.Real, err = note(ctx, "real", event.Data.Real)
	return result, err
}

func nothing(ctx sw.Context, _ sw.Event[any]) (any, error) {
	_, err := note[any](ctx, "nothing", nil)
	return nil, err
}

func absent(_ sw.Context, event sw.Event[fields]) (fields, error) {
	value, has := event.Data["value"]
	return fields{"has": has, "null": value == nil}, nil
}

func loop(ctx sw.Context, event sw.Event[struct{ Times int }]) (int, error) {
	total := 0
	for n := range event.Data.Times {
		item, err := note(ctx, "item", n)
		if err != nil {
			return 0, err
		}
		total += item
	}
	return total, nil
}

func nested(ctx sw.Context, _ sw.Event[any]) ([]string, error) {
	inner := func(value string) (string, error) { return note(ctx, "inner", value) }
	first, err := inner("x")
	if err != nil {
		return nil, err
	}
	if _, err := note[any](ctx, "between", nil); err != nil {
		return nil, err
	}
	second, err := inner("y")
	return []string{first, second}, err
}

// failed is what a function says of a step that it caught.
func failed(err error) (any, error) {
	var step *sw.StepError
	if !errors.As(err, &step) {
		return nil, err
	}
	return fields{"type": step.Type, "attempts": step.Attempts}, nil
}

func large(ctx sw.Context, event sw.Event[struct{ Bytes int }]) (any, error) {
	text, err := note(ctx, "large", strings.Repeat("x", event.Data.Bytes))
	if err != nil {
		return failed(err)
	}
	return len(text), nil
}

func unserializable(ctx sw.Context, _ sw.Event[any]) (any, error) {
	if _, err := note(ctx, "odd", math.NaN()); err != nil {
		return failed(err)
	}
	return "it passed", nil
}

func misuse(ctx sw.Context, _ sw.Event[any]) (any, error) { return note[any](ctx, "", nil) }

func stable(ctx sw.Context, _ sw.Event[any]) (fields, error) {
	began := sw.Now(ctx)
	made := []any{sw.UUID(ctx), sw.Random(ctx).Float64()}
	recorded, err := note(ctx, "recorded", made)
	if err != nil {
		return nil, err
	}
	err = sw.Sleep(ctx, hour)
	same := recorded[0] == made[0] && recorded[1] == made[1]
	return fields{"same": same, "slept": sw.Now(ctx).Sub(began) >= hour, "again": sw.UUID(ctx) == made[0]}, err
}

func strict(ctx sw.Context, event sw.Event[fields]) ([]any, error) {
	a, err := note(ctx, "a", event.Data, sw.Input(event.Data))
	if err != nil {
		return nil, err
	}
	if err := sw.Sleep(ctx, hour); err != nil {
		return nil, err
	}
	echoed, err := sw.Invoke[any](ctx, "echo", event.Data)
	if err != nil {
		return nil, err
	}
	if _, err := sw.SendEvent(ctx, "conformance/noted", event.Data); err != nil {
		return nil, err
	}
	_, _, err = sw.WaitForEvent[any](ctx, event.Data["event"].(string), sw.Timeout(720*hour), sw.Name("come"))
	return []any{a, echoed}, err
}

func together(ctx sw.Context, _ sw.Event[any]) (int, error) {
	results := make([]int, 2)
	g := sw.NewGroup(ctx)
	for i, name := range []string{"a", "b"} {
		g.Go("", func(ctx sw.Context) (err error) {
			results[i], err = note(ctx, name, i+1)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	return note(ctx, "c", results[0]+results[1])
}

func branches(ctx sw.Context, _ sw.Event[any]) ([]string, error) {
	results := make([]string, 2)
	g := sw.NewGroup(ctx)
	branch := func(i int, name string, pause time.Duration) {
		g.Go("", func(ctx sw.Context) (err error) {
			if err := sw.Sleep(ctx, pause, sw.Name("pause "+name)); err != nil {
				return err
			}
			results[i], err = note(ctx, "same", name)
			return err
		})
	}
	branch(0, "a", 2*hour)
	branch(1, "b", hour)
	return results, g.Wait()
}

func spread(ctx sw.Context, event sw.Event[struct{ Parts int }]) (total int, err error) {
	g := sw.NewGroup(ctx)
	for n := range event.Data.Parts {
		g.Go("", func(ctx sw.Context) error {
			part, err := note(ctx, "part", n)
			total += part
			return err
		})
	}
	return total, g.Wait()
}

func timers(ctx sw.Context, event sw.Event[struct{ Timers int }]) (int, error) {
	g := sw.NewGroup(ctx)
	for n := range event.Data.Timers {
		g.Go("", func(ctx sw.Context) error { return sw.Sleep(ctx, time.Duration(n+1)*time.Minute) })
	}
	return event.Data.Timers, g.Wait()
}

func first(ctx sw.Context, event sw.Event[waiting]) (string, error) {
	winner, _, err := sw.Race(ctx,
		func(ctx sw.Context) (came bool, err error) {
			_, came, err = sw.WaitForEvent[any](ctx, event.Data.Event, sw.Timeout(2*hour), sw.Name("go"))
			return came, err
		},
		func(ctx sw.Context) (bool, error) { return false, sw.Sleep(ctx, hour, sw.Name("limit")) },
	)
	if err != nil {
		return "", err
	}
	name := []string{"x", "y"}[winner]
	return note(ctx, name, name)
}

func race(ctx sw.Context, _ sw.Event[any]) (string, error) {
	_, value, err := sw.Race(ctx,
		func(ctx sw.Context) (string, error) { return note(ctx, "fast", "fast") },
		func(ctx sw.Context) (string, error) { return "slow", sw.Sleep(ctx, 24*hour, sw.Name("slow")) },
	)
	if err != nil {
		return "", err
	}
	return note(ctx, "won", value)
}

func undone(ctx sw.Context, _ sw.Event[any]) (string, error) {
	g := sw.NewGroup(ctx)
	g.Go("", func(ctx sw.Context) error { return sw.Sleep(ctx, 24*hour, sw.Name("pause")) })
	g.Go("", func(ctx sw.Context) error {
		_, err := sw.Run(ctx, "charge", decline, sw.Retries(0))
		return err
	})
	err := g.Wait()
	var failed *sw.StepError
	if errors.As(err, &failed) {
		_, err = note[any](ctx, "undo", nil)
	}
	return "undone", err
}

func mixed(ctx sw.Context, event sw.Event[waiting]) ([]any, error) {
	results := make([]any, 4)
	g := sw.NewGroup(ctx)
	g.Go("", func(ctx sw.Context) error { return sw.Sleep(ctx, hour, sw.Name("pause")) })
	g.Go("", func(ctx sw.Context) (err error) {
		results[1], _, err = sw.WaitForEvent[any](ctx, event.Data.Event, sw.Timeout(720*hour), sw.Name("come"))
		return err
	})
	g.Go("", func(ctx sw.Context) (err error) {
		results[2], err = note(ctx, "note", "n")
		return err
	})
	g.Go("", func(ctx sw.Context) (err error) {
		results[3], err = sw.Invoke[any](ctx, "echo", fields{"n": 1})
		return err
	})
	return results, g.Wait()
}

func carried(ctx sw.Context, event sw.Event[waiting]) ([]any, error) {
	a, err := hold(ctx, "a", "a")
	if err != nil {
		return nil, err
	}
	b, err := note(ctx, "b", []string{a, "b"})
	if err != nil {
		return nil, err
	}
	if err := sw.Sleep(ctx, hour); err != nil {
		return nil, err
	}
	// Whole numbers beyond 2^53: encoding/json makes floats of them where it is free to.
	came, _, err := sw.WaitForEvent[json.RawMessage](ctx, event.Data.Event, sw.Timeout(720*hour), sw.Name("come"))
	if err != nil {
		return nil, err
	}
	child, err := sw.Invoke[json.RawMessage](ctx, "echo", b)
	if err != nil {
		return nil, err
	}
	c, err := hold(ctx, "c", child)
	return []any{c, came}, err
}

func heldPair(ctx sw.Context, _ sw.Event[any]) ([][2]string, error) {
	results := make([][2]string, 2)
	g := sw.NewGroup(ctx)
	for i, name := range []string{"left", "right"} {
		g.Go("", func(ctx sw.Context) (err error) {
			if results[i][0], err = hold(ctx, name, name); err != nil {
				return fmt.Errorf("branch %s: %w", name, err)
			}
			results[i][1], err = note(ctx, "same", name)
			return err
		})
	}
	return results, g.Wait()
}
