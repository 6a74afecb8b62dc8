// Functions about time, events, other functions, failures, and ends that come from outside.

package main

import (
	"context"
	"errors"
	"time"

	sw "stepwell.example/stepwell"
)

// Declined is an error of the user's own.
type Declined struct{}

func (*Declined) Error() string { return "no money" }

func decline(ctx context.Context) (any, error) {
	return nil, errors.Join(effect(sw.CurrentStep(ctx)), &Declined{})
}

func sleeper(ctx sw.Context, event sw.Event[struct{ Sleeps []string }]) (int, error) {
	for _, text := range event.Data.Sleeps {
		duration, err := time.ParseDuration(text)
		if err != nil {
			return 0, err
		}
		if err := sw.Sleep(ctx, duration); err != nil {
			return 0, err
		}
	}
	return len(event.Data.Sleeps), nil
}

type instant struct {
	AtMs int64 `json:"at_ms"`
}

func until(ctx sw.Context, event sw.Event[instant]) (string, error) {
	return "slept", sw.SleepUntil(ctx, time.UnixMilli(event.Data.AtMs))
}

type waits struct {
	Held  bool
	Waits []struct{ Event, Match, If, Timeout, Name string }
}

func waiter(ctx sw.Context, event sw.Event[waits]) ([]any, error) {
	seen := []any{}
	if event.Data.Held {
		if _, err := hold[any](ctx, "held", nil); err != nil {
			return nil, err
		}
	}
	for _, wait := range event.Data.Waits {
		timeout, err := time.ParseDuration(wait.Timeout)
		if err != nil {
			return nil, err
		}
		came, _, err := sw.WaitForEvent[any](ctx, wait.Event,
			sw.Match(wait.Match), sw.If(wait.If), sw.Timeout(timeout), sw.Name(wait.Name))
		if err != nil {
			return nil, err
		}
		seen = append(seen, came)
	}
	return seen, nil
}

// toldOf is what a function says of an event.
func toldOf(event sw.Event[any]) fields {
	metadata := event.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	return fields{"name": event.Name, "data": event.Data, "metadata": metadata, "sender_id": event.SenderID}
}

func seen(ctx sw.Context, event sw.Event[waiting]) (fields, error) {
	came, _, err := sw.WaitForEvent[sw.Event[any]](ctx, event.Data.Event, sw.Timeout(720*hour))
	return toldOf(came), err
}

var triggers = sw.Triggers{
	{Event: "conformance/exact"},
	{Event: "conformance/judged", If: "event.data.amount > 10 && event.metadata.kind == 'big'"},
	{Event: "conformance/wild/*"},
}

func triggered(_ sw.Context, event sw.Event[any]) (fields, error) { return toldOf(event), nil }

func sender(ctx sw.Context, event sw.Event[struct{ ID string }]) (fields, error) {
	own := event.Data.ID
	second := sw.NewEvent{Name: "conformance/sent", Data: fields{"to": own, "n": 2}, ID: own}
	one, err := sw.SendEvent(ctx, "conformance/sent", fields{"to": own, "n": 1})
	if err != nil {
		return nil, err
	}
	more, err := sw.SendEvents(ctx, []sw.NewEvent{second, {Name: "conformance/other"}})
	if err != nil {
		return nil, err
	}
	again, err := sw.SendEvents(ctx, []sw.NewEvent{second}, sw.Name("again"))
	if err != nil {
		return nil, err
	}
	back, _, err := sw.WaitForEvent[struct{ N int }](ctx, "conformance/back",
		sw.Match("data.id"), sw.If("async.data.n == 2"), sw.Timeout(24*hour))
	return fields{"ids": append([]string{one}, more...), "again": again[0] == more[0], "back": back.N}, err
}

type sent struct {
	To string
	N  int
}

func receiver(ctx sw.Context, event sw.Event[sent]) (int, error) {
	_, err := sw.SendEvent(ctx, "conformance/back", fields{"id": event.Data.To, "n": event.Data.N})
	return event.Data.N, err
}

type asked struct {
	Function string
	Input    any
	Timeout  string
	Detached bool
}

// parent invokes as told, and says what came.
func parent(ctx sw.Context, event sw.Event[asked]) (fields, error) {
	var opts []sw.InvokeOption
	if event.Data.Timeout != "" {
		timeout, err := time.ParseDuration(event.Data.Timeout)
		if err != nil {
			return nil, err
		}
		opts = append(opts, sw.Timeout(timeout))
	}
	if event.Data.Detached {
		opts = append(opts, sw.Detached())
	}
	output, err := sw.Invoke[any](ctx, event.Data.Function, event.Data.Input, opts...)
	var failed *sw.StepError
	if errors.As(err, &failed) && errors.Is(err, sw.ErrInvoke) {
		return fields{"error": kindOf(err), "type": failed.Type, "message": failed.Message}, nil
	}
	return fields{"output": output}, err
}

func kindOf(err error) string {
	switch {
	case errors.Is(err, sw.ErrRunFailed):
		return "failed"
	case errors.Is(err, sw.ErrRunCancelled):
		return "cancelled"
	case errors.Is(err, sw.ErrRunTimedOut):
		return "timed out"
	case errors.Is(err, sw.ErrTimeout):
		return "took too long"
	}
	return "not begun"
}

func forever(ctx sw.Context, _ sw.Event[any]) (any, error) {
	if _, err := note[any](ctx, "began", nil); err != nil {
		return nil, err
	}
	_, _, err := sw.WaitForEvent[any](ctx, "conformance/never")
	return nil, err
}

func deep(ctx sw.Context, event sw.Event[int]) (int, error) {
	if event.Data == 0 {
		return note(ctx, "bottom", 0)
	}
	below, err := sw.Invoke[int](ctx, "deep", event.Data-1)
	return below + 1, err
}

func failing(how string) error {
	switch how {
	case "non_retriable":
		return sw.NonRetriable(errors.New("never again"))
	case "retry_after":
		return sw.RetryAfter(hour, errors.New("busy"))
	}
	return &Declined{}
}

type plan struct {
	Fails, Times, Attempts int
	How                    string
}

func flaky(ctx sw.Context, event sw.Event[plan]) (any, error) {
	data := event.Data
	charged, err := sw.Run(ctx, "charge", func(ctx context.Context) ([]any, error) {
		me := sw.CurrentStep(ctx)
		if err := effect(me); err != nil {
			return nil, err
		}
		if me.Attempt <= data.Fails {
			return nil, failing(data.How)
		}
		var last any
		if me.LastError != nil {
			last = me.LastError.Message
		}
		return []any{me.Attempt, last, me.Token}, nil
	}, sw.Retry{Attempts: data.Attempts, Initial: time.Minute, Factor: 2, NoJitter: true})
	var step *sw.StepError
	if errors.As(err, &step) {
		return note(ctx, "refund", fields{"type": step.Type, "message": step.Message, "attempts": step.Attempts})
	}
	return charged, err
}

var thrice = sw.Retry{Attempts: 3, Initial: hour, Factor: 2, Max: 24 * hour, NoJitter: true}

func fails(ctx sw.Context, event sw.Event[plan]) ([]int, error) {
	attempt := sw.Info(ctx).Attempt
	before, err := note(ctx, "before", attempt)
	if err != nil {
		return nil, err
	}
	if attempt <= event.Data.Times {
		return nil, failing(event.Data.How)
	}
	return []int{before, attempt}, nil
}

func uncaught(ctx sw.Context, _ sw.Event[any]) (any, error) {
	if _, err := note[any](ctx, "a", nil); err != nil {
		return nil, err
	}
	return sw.Run(ctx, "charge", decline)
}

func slow(ctx sw.Context, _ sw.Event[any]) (any, error) {
	retry := sw.Retry{Attempts: 2, Initial: time.Minute, NoJitter: true}
	_, err := hold[any](ctx, "slow", nil, sw.Timeout(50*time.Millisecond), retry)
	var step *sw.StepError
	if errors.As(err, &step) && errors.Is(err, sw.ErrTimeout) {
		return fields{"error": "StepTimeoutError", "type": step.Type, "attempts": step.Attempts}, nil
	}
	return "in time", err
}

func cleanup(ctx sw.Context, event sw.Event[waits]) (end string, err error) {
	defer func() {
		_, failed := note[any](ctx, "clean", nil)
		err = errors.Join(err, failed)
	}()
	work := note[any]
	if event.Data.Held {
		work = hold[any]
	}
	if _, err := work(ctx, "work", nil); err != nil {
		return "", err
	}
	return "end", sw.Sleep(ctx, 720*hour)
}

func told(ctx sw.Context, _ sw.Event[any]) (any, error) {
	err := sw.Sleep(ctx, 720*hour)
	var why *sw.CancelledError
	if errors.As(err, &why) {
		_, failed := note(ctx, "told", why.Message)
		err = errors.Join(err, failed)
	}
	return nil, err
}

func stubborn(ctx sw.Context, _ sw.Event[any]) (string, error) {
	if err := sw.Sleep(ctx, 720*hour); !errors.Is(err, sw.ErrCancelled) {
		return "", err
	}
	_, err := note[any](ctx, "so what", nil)
	return "went on", err
}
