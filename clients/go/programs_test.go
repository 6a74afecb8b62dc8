// The programs that transcripts run, as tests/conformance/README.md describes them in words.

package stepwell_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	sw "stepwell.example/stepwell"
)

type (
	raw    = json.RawMessage
	fields = map[string]any
)

// ValueError and KeyError are errors of a user.
type (
	ValueError struct{ message string }
	KeyError   struct{ message string }
)

func (e *ValueError) Error() string { return e.message }
func (e *KeyError) Error() string   { return e.message }

// run is a step whose body is never executed: transcripts say how bodies end.
func run[T any](ctx sw.Context, name string, args ...any) (T, error) {
	return sw.Run(ctx, name, func(context.Context) (T, error) { panic("a transcript executes no body") }, sw.Input(args...))
}

func do(ctx sw.Context, name string, args ...any) error {
	_, err := run[raw](ctx, name, args...)
	return err
}

var programs = sw.NewApp("test",
	program("sequential", sequential), program("repeat", repeat), program("loop", loop), program("gather", gather),
	program("branches", branches), program("first", first), program("race", race), program("group", group),
	program("sleep", sleep), program("sleep_until", sleepUntil), program("clock", clock), program("wait", wait),
	program("invoke", invoke), program("invoke_uncaught", invokeUncaught), program("send", send),
	program("caught", caught, sw.Retries(1)), program("raises", raises), program("second_try", secondTry),
	program("hopeless", hopeless), program("later", later), program("cleanup", cleanup), program("stubborn", stubborn),
	program("told", told), program("deaf", deaf), program("foreign", foreign), program("pass_on", passOn), program("keys", keyed),
	program("other_kind", otherKind), program("other_target", otherTarget), program("strict", strict, sw.Strict()),
	program("strict_nothing", strictNothing, sw.Strict()), program("strict_values", strictValues, sw.Strict()),
	program("strict_calls", strictCalls, sw.Strict()), program("chance", chance),
	program("two_waits", twoWaits), program("late_question", lateQuestion), program("unasked", unasked),
	named("batch", sw.BatchFunction("batch", sw.On(), sw.Batch{MaxSize: 10, Timeout: time.Second}, batch)),
)

var byName = map[string]sw.Declared{}

func program[Out any](name string, code func(sw.Context, sw.Event[fields]) (Out, error), opts ...sw.FunctionOption) sw.Declared {
	return named(name, sw.Function(name, sw.On(), code, opts...))
}

func named(name string, declared sw.Declared) sw.Declared {
	byName[name] = declared
	return declared
}

func batch(ctx sw.Context, events []sw.Event[fields]) ([]any, error) {
	var ids, numbers []any
	for _, one := range events {
		ids, numbers = append(ids, one.ID), append(numbers, one.Data["n"])
	}
	return numbers, do(ctx, "note", ids...)
}

func sequential(ctx sw.Context, _ sw.Event[fields]) (map[string]raw, error) {
	a, err := run[raw](ctx, "a")
	if err != nil {
		return nil, err
	}
	b, err := run[raw](ctx, "b", a)
	return map[string]raw{"a": a, "b": b}, err
}

func repeat(ctx sw.Context, _ sw.Event[fields]) ([]raw, error) {
	var results []raw
	for n := 1; n <= 3; n++ {
		result, err := run[raw](ctx, "charge", n)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

func loop(ctx sw.Context, event sw.Event[fields]) (int, error) {
	times, ok := event.Data["times"].(float64)
	if !ok {
		return 0, &KeyError{"times"}
	}
	total := 0
	for n := range int(times) {
		item, err := run[int](ctx, "item", n)
		if err != nil {
			return 0, err
		}
		total += item
	}
	return total, nil
}

func gather(ctx sw.Context, _ sw.Event[fields]) (raw, error) {
	results := make([]any, 2)
	g := sw.NewGroup(ctx)
	for i, name := range []string{"a", "b"} {
		g.Go("", func(ctx sw.Context) (err error) {
			results[i], err = run[raw](ctx, name)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return run[raw](ctx, "c", results...)
}

func branches(ctx sw.Context, _ sw.Event[fields]) ([]raw, error) {
	results := make([]raw, 2)
	g := sw.NewGroup(ctx)
	for i, name := range []string{"a", "b"} {
		g.Go("", func(ctx sw.Context) (err error) {
			if err := do(ctx, name); err != nil {
				return err
			}
			results[i], err = run[raw](ctx, "same", name)
			return err
		})
	}
	return results, g.Wait()
}

func first(ctx sw.Context, _ sw.Event[fields]) (raw, error) {
	winner, _, err := sw.Race(ctx,
		func(ctx sw.Context) (came bool, err error) {
			_, came, err = sw.WaitForEvent[raw](ctx, "go", sw.Timeout(2*time.Hour))
			return came, err
		},
		func(ctx sw.Context) (bool, error) { return false, sw.Sleep(ctx, time.Hour, sw.Name("limit")) },
	)
	if err != nil {
		return nil, err
	}
	return run[raw](ctx, []string{"x", "y"}[winner])
}

func race(ctx sw.Context, _ sw.Event[fields]) (raw, error) {
	branch := func(name string) func(sw.Context) (raw, error) {
		return func(ctx sw.Context) (raw, error) { return run[raw](ctx, name) }
	}
	_, result, err := sw.Race(ctx, branch("a"), branch("b"))
	if err != nil {
		return nil, err
	}
	return run[raw](ctx, "won", []raw{result})
}

func group(ctx sw.Context, _ sw.Event[fields]) (string, error) {
	g := sw.NewGroup(ctx)
	g.Go("", func(ctx sw.Context) error { return do(ctx, "a") })
	g.Go("", func(ctx sw.Context) error { return do(ctx, "b") })
	var failed *sw.StepError
	err := g.Wait()
	if errors.As(err, &failed) {
		err = do(ctx, "undo")
	}
	return "end", err
}

func sleep(ctx sw.Context, _ sw.Event[fields]) (string, error) {
	return "slept", sw.Sleep(ctx, 90*time.Minute)
}

func sleepUntil(ctx sw.Context, _ sw.Event[fields]) (string, error) {
	return "slept", sw.SleepUntil(ctx, time.Unix(1_000_000_000, 0))
}

func clock(ctx sw.Context, _ sw.Event[fields]) ([]int64, error) {
	times := []int64{sw.Now(ctx).UnixMilli()}
	if err := do(ctx, "a"); err != nil {
		return nil, err
	}
	times = append(times, sw.Now(ctx).UnixMilli())
	err := sw.Sleep(ctx, time.Minute)
	return append(times, sw.Now(ctx).UnixMilli()), err
}

func wait(ctx sw.Context, _ sw.Event[fields]) (any, error) {
	booking, came, err := sw.WaitForEvent[sw.Event[raw]](ctx, "booking/created",
		sw.Match("data.user_id"), sw.If("async.data.ok"), sw.Timeout(4*24*time.Hour))
	if err != nil || !came {
		return nil, err
	}
	return fields{"id": booking.ID, "data": booking.Data}, nil
}

func invoke(ctx sw.Context, _ sw.Event[fields]) (any, error) {
	output, err := sw.Invoke[raw](ctx, "billing/charge", fields{"amount": 5}, sw.Timeout(time.Minute))
	var failed *sw.StepError
	switch {
	case errors.Is(err, sw.ErrTimeout):
		return "timed out", nil
	case errors.Is(err, sw.ErrRunCancelled):
		return "cancelled", nil
	case errors.Is(err, sw.ErrRunTimedOut):
		return "out of time", nil
	case errors.As(err, &failed) && errors.Is(err, sw.ErrInvoke):
		return "failed with " + failed.Type, nil
	}
	return output, err
}

func invokeUncaught(ctx sw.Context, _ sw.Event[fields]) (raw, error) {
	return sw.Invoke[raw](ctx, "charge", nil, sw.Detached(), sw.Name("pay"))
}

func send(ctx sw.Context, _ sw.Event[fields]) ([]string, error) {
	one, err := sw.SendEvent(ctx, "x/y", fields{"n": 1})
	if err != nil {
		return nil, err
	}
	two, err := sw.SendEvents(ctx, []sw.NewEvent{{Name: "x/a", Data: fields{"n": 2}}, {Name: "x/b"}})
	return append([]string{one}, two...), err
}

func caught(ctx sw.Context, _ sw.Event[fields]) (any, error) {
	var failed *sw.StepError
	err := do(ctx, "charge")
	if errors.As(err, &failed) {
		return run[raw](ctx, "refund", failed.Type, failed.Attempts)
	}
	return "charged", err
}

func raises(ctx sw.Context, _ sw.Event[fields]) (any, error) {
	if err := do(ctx, "a"); err != nil {
		return nil, err
	}
	return nil, &ValueError{"boom"}
}

func secondTry(ctx sw.Context, _ sw.Event[fields]) ([]any, error) {
	a, err := run[raw](ctx, "a")
	if err != nil {
		return nil, err
	}
	if sw.Info(ctx).Attempt == 1 {
		return nil, &ValueError{"boom"}
	}
	b, err := run[raw](ctx, "b")
	return []any{a, b, sw.Info(ctx).Attempt}, err
}

func hopeless(sw.Context, sw.Event[fields]) (any, error) {
	return nil, sw.NonRetriable(errors.New("no use"))
}

func later(sw.Context, sw.Event[fields]) (any, error) {
	return nil, sw.RetryAfter(30*time.Second, errors.New("busy"))
}

func cleanup(ctx sw.Context, _ sw.Event[fields]) (end string, err error) {
	defer func() {
		if failed := do(ctx, "clean"); err == nil {
			err = failed
		}
	}()
	if err := do(ctx, "work"); err != nil {
		return "", err
	}
	return "end", sw.Sleep(ctx, 24*time.Hour)
}

func stubborn(ctx sw.Context, _ sw.Event[fields]) (string, error) {
	if err := sw.Sleep(ctx, 24*time.Hour); !errors.Is(err, sw.ErrCancelled) {
		return "", fmt.Errorf("not cancelled, but %w", err)
	}
	return "went on", nil
}

func told(ctx sw.Context, _ sw.Event[fields]) (any, error) {
	err := sw.Sleep(ctx, 24*time.Hour)
	var why *sw.CancelledError
	if errors.As(err, &why) {
		return nil, errors.Join(err, do(ctx, "note", why.Message))
	}
	return nil, err
}

func deaf(ctx sw.Context, _ sw.Event[fields]) (any, error) {
	for {
		_ = sw.Sleep(ctx, 24*time.Hour)
	}
}

func foreign(ctx sw.Context, _ sw.Event[fields]) (any, error) {
	if err := do(ctx, "a"); err != nil {
		return nil, err
	}
	<-make(chan struct{})
	return nil, nil
}

func passOn(ctx sw.Context, _ sw.Event[fields]) (raw, error) {
	a, err := run[raw](ctx, "a")
	if err != nil {
		return nil, err
	}
	return run[raw](ctx, "b", a)
}

func keyed(ctx sw.Context, event sw.Event[fields]) (raw, error) {
	return run[raw](ctx, event.Data["key"].(string))
}

func otherKind(ctx sw.Context, _ sw.Event[fields]) (any, error) {
	if err := do(ctx, "a"); err != nil {
		return nil, err
	}
	return nil, sw.Sleep(ctx, time.Hour, sw.Name("charge"))
}

func otherTarget(ctx sw.Context, _ sw.Event[fields]) (any, error) {
	_, _, err := sw.WaitForEvent[raw](ctx, "new/name", sw.Name("answer"), sw.Timeout(time.Hour))
	return nil, err
}

func strict(ctx sw.Context, _ sw.Event[fields]) (raw, error) { return run[raw](ctx, "a", 1) }

func strictNothing(ctx sw.Context, _ sw.Event[fields]) (raw, error) { return run[raw](ctx, "a") }

func strictValues(ctx sw.Context, event sw.Event[fields]) ([]raw, error) {
	var results []raw
	for _, value := range event.Data["values"].([]any) {
		result, err := run[raw](ctx, "item", value)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

func strictCalls(ctx sw.Context, _ sw.Event[fields]) ([]string, error) {
	if _, err := sw.Invoke[raw](ctx, "billing/charge", fields{"cents": 5, "amount": 0.05}); err != nil {
		return nil, err
	}
	return sw.SendEvents(ctx, []sw.NewEvent{{Name: "x/a", Data: fields{"n": 2}, ID: "mine"}, {Name: "x/b"}})
}

func chance(ctx sw.Context, _ sw.Event[fields]) ([]any, error) {
	drawn := []any{sw.UUID(ctx), sw.Random(ctx).Float64(), sw.UUID(ctx), sw.Random(ctx).Float64()}
	err := do(ctx, "a", drawn...)
	return append(drawn, sw.UUID(ctx), sw.Random(ctx).Float64()), err
}

func twoWaits(ctx sw.Context, _ sw.Event[fields]) (raw, error) {
	g := sw.NewGroup(ctx)
	for _, event := range []string{"a", "b"} {
		g.Go("", func(ctx sw.Context) error {
			_, _, err := sw.WaitForEvent[raw](ctx, event, sw.Timeout(time.Hour))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return run[raw](ctx, "end")
}

func lateQuestion(ctx sw.Context, _ sw.Event[fields]) ([]raw, error) {
	var results []raw
	for _, name := range []string{"a", "b", "c"} {
		result, err := run[raw](ctx, name)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

func unasked(ctx sw.Context, _ sw.Event[fields]) (raw, error) {
	sw.NewGroup(ctx).Go("", func(ctx sw.Context) error { return do(ctx, "never awaited") })
	return run[raw](ctx, "a")
}
