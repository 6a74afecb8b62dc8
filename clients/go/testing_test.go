// The test kit, and with it functions whole: what they do with time, events, failures and each other.

package stepwell_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	sw "stepwell.example/stepwell"
)

type user struct {
	ID    int    `json:"user_id"`
	Email string `json:"email"`
}

// shop is an app to test, with the letters that it sent.
func shop(sent *[]string) *sw.App {
	mail := func(what string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) {
			*sent = append(*sent, what)
			return what, nil
		}
	}
	drip := sw.Function("drip", sw.On("user/joined"), func(ctx sw.Context, event sw.Event[user]) (string, error) {
		if _, err := sw.Run(ctx, "welcome", mail("welcome "+event.Data.Email)); err != nil {
			return "", err
		}
		booking, came, err := sw.WaitForEvent[sw.Event[user]](ctx, "booking/created", sw.Match("data.user_id"), sw.Timeout(96*time.Hour))
		if err != nil {
			return "", err
		}
		if !came {
			_, err := sw.Run(ctx, "remind", mail("remind"))
			return "reminded", err
		}
		return "booked by " + booking.Data.Email, nil
	})
	flaky := sw.Function("flaky", sw.On(), func(ctx sw.Context, event sw.Event[int]) (int, error) {
		return sw.Run(ctx, "try", func(ctx context.Context) (int, error) {
			if attempt := sw.CurrentStep(ctx).Attempt; attempt <= event.Data {
				return 0, fmt.Errorf("attempt %d failed", attempt)
			}
			return sw.CurrentStep(ctx).Attempt, nil
		})
	})
	parent := sw.Function("parent", sw.On(), func(ctx sw.Context, event sw.Event[int]) (string, error) {
		attempts, err := flaky.Invoke(ctx, event.Data, sw.Timeout(time.Minute))
		if errors.Is(err, sw.ErrTimeout) {
			return "too slow", nil
		}
		if err != nil {
			return "", err
		}
		receipt, err := sw.Invoke[map[string]string](ctx, "billing/charge", attempts)
		return receipt["id"], err
	})
	return sw.NewApp("shop", drip, flaky, parent)
}

func newEnv(t *testing.T, app *sw.App) *sw.TestEnv {
	t.Helper()
	env, err := sw.NewTestEnv(app)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func sendOne(t *testing.T, env *sw.TestEnv, name string, data any) *sw.TestRun {
	t.Helper()
	runs, err := env.Send(name, data)
	if err != nil || len(runs) != 1 {
		t.Fatal(runs, err)
	}
	return runs[0]
}

func start(t *testing.T, env *sw.TestEnv, function string, input any) *sw.TestRun {
	t.Helper()
	run, err := env.Start(function, input)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func resultOf[T any](t *testing.T, run *sw.TestRun) (value T) {
	t.Helper()
	if err := run.Result(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

func TestADripOfFourDays(t *testing.T) {
	for _, reenter := range []bool{false, true} {
		var sent []string
		env := newEnv(t, shop(&sent))
		env.Reenter = reenter
		ada := sendOne(t, env, "user/joined", user{1, "ada@x"})
		bob := sendOne(t, env, "user/joined", user{2, "bob@x"})
		if ada.Status() != sw.StatusParked || !slices.Equal(ada.WaitsFor(), []string{"booking/created"}) {
			t.Fatal(ada.Status(), ada.WaitsFor())
		}
		if err := ada.Result(nil); !errors.Is(err, sw.ErrUsage) {
			t.Fatal(err)
		}
		env.Advance(95 * time.Hour)
		if _, err := env.Send("booking/created", user{1, "ada@y"}); err != nil {
			t.Fatal(err)
		}
		if got := resultOf[string](t, ada); got != "booked by ada@y" {
			t.Fatal(got)
		}
		env.Advance(time.Hour)
		if got := resultOf[string](t, bob); got != "reminded" {
			t.Fatal(got)
		}
		if want := []string{"welcome ada@x", "welcome bob@x", "remind"}; !slices.Equal(sent, want) {
			t.Fatal(sent)
		}
		if want := []string{"welcome", "booking/created", "remind"}; !slices.Equal(bob.Keys(), want) {
			t.Fatal(bob.Keys())
		}
	}
}

func TestRetriesWaitForTheClock(t *testing.T) {
	env := newEnv(t, shop(new([]string)))
	run := start(t, env, "flaky", 3)
	if !slices.Equal(run.WaitsFor(), []string{"try#2"}) {
		t.Fatal(run.WaitsFor())
	}
	began := env.Now()
	env.Advance(3 * time.Second)
	if run.Status().Ended() {
		t.Fatal("1 s, 2 s and 4 s have not passed")
	}
	env.Advance(4 * time.Second)
	if got := resultOf[int](t, run); got != 4 || env.Now().Sub(began) != 7*time.Second {
		t.Fatal(got, env.Now())
	}
	hopeless := start(t, env, "flaky", 9)
	env.Advance(time.Minute)
	var failed *sw.StepError
	if err := hopeless.Result(nil); !errors.As(err, &failed) || !errors.Is(err, sw.ErrRunFailed) || !strings.Contains(err.Error(), "attempt 4 failed") {
		t.Fatal(err)
	}
}

func TestChildrenAndMocks(t *testing.T) {
	env := newEnv(t, shop(new([]string)))
	lost := start(t, env, "parent", 0)
	if err := lost.Result(nil); !strings.Contains(err.Error(), "MockFunction") {
		t.Fatal(err)
	}
	env.MockFunction("billing/charge", func(input json.RawMessage) (any, error) {
		if string(input) == "2" {
			return nil, &ValueError{"two is refused"}
		}
		return map[string]string{"id": "r-" + string(input)}, nil
	})
	if got := resultOf[string](t, start(t, env, "parent", 0)); got != "r-1" {
		t.Fatal(got)
	}
	refused := start(t, env, "parent", 1)
	env.Advance(time.Second)
	var failed *sw.StepError
	if err := refused.Result(nil); !errors.As(err, &failed) || !strings.Contains(err.Error(), "ValueError: two is refused") {
		t.Fatal(err)
	}
	env.MockStep("try", func(context.Context) (any, error) { return nil, sw.RetryAfter(time.Hour, errors.New("busy")) })
	slow := start(t, env, "parent", 0)
	env.Advance(time.Minute)
	if got := resultOf[string](t, slow); got != "too slow" {
		t.Fatal(got)
	}
	if child := slow.Children()[0]; child.Status() != sw.StatusCancelled {
		t.Fatal(child.Status())
	}
}

func TestCancelRunsTheCleanUp(t *testing.T) {
	env := newEnv(t, programs)
	for _, name := range []string{"work", "clean"} {
		env.MockStep(name, func(context.Context) (any, error) { return name, nil })
	}
	run := start(t, env, "cleanup", map[string]any{})
	run.Cancel()
	if want := []string{"work", "$cancel", "clean"}; run.Status() != sw.StatusCancelled || !slices.Equal(run.Keys(), want) {
		t.Fatal(run.Status(), run.Keys())
	}
	if err := run.Result(nil); !errors.Is(err, sw.ErrRunCancelled) {
		t.Fatal(err)
	}
}

func TestARunWhoseTimeIsOverIsUnwoundAndItsParentIsTold(t *testing.T) {
	var told *sw.CancelledError
	app := sw.NewApp("test",
		sw.Function("claim", sw.On(), func(ctx sw.Context, _ sw.Event[any]) (any, error) {
			_, _, err := sw.WaitForEvent[any](ctx, "claim/decided")
			errors.As(err, &told)
			_, failed := sw.Run(ctx, "close", func(context.Context) (bool, error) { return true, nil })
			return nil, failed
		}, sw.Timeout(14*24*time.Hour), sw.StartTimeout(time.Hour)),
		sw.Function("desk", sw.On(), func(ctx sw.Context, _ sw.Event[any]) (string, error) {
			_, err := sw.Invoke[any](ctx, "claim", nil, sw.Timeout(20*24*time.Hour))
			var failed *sw.StepError
			if errors.Is(err, sw.ErrRunTimedOut) && !errors.Is(err, sw.ErrTimeout) && errors.As(err, &failed) {
				return failed.Message, nil
			}
			return "", err
		}))
	for _, reenter := range []bool{false, true} {
		env := newEnv(t, app)
		env.Reenter = reenter
		run := start(t, env, "desk", nil)
		env.Advance(14*24*time.Hour - time.Millisecond)
		if run.Status() != sw.StatusParked {
			t.Fatal(run.Status())
		}
		env.Advance(time.Millisecond)
		said := "the run had not ended 336h0m0s after its start (timeout)"
		if got := resultOf[string](t, run); got != said || told == nil || told.Message != said {
			t.Fatal(got, told)
		}
		child := run.Children()[0]
		if want := []string{"$cancel", "close"}; child.Status() != sw.StatusTimedOut || !slices.Equal(child.Keys(), want) {
			t.Fatal(child.Status(), child.Keys())
		}
		if err := child.Result(nil); !errors.Is(err, sw.ErrRunTimedOut) || errors.Is(err, sw.ErrRunCancelled) || errors.Is(err, sw.ErrTimeout) {
			t.Fatal(err)
		}
	}
}

func TestARunThatIsPausedEndsAtOnceWhenItsTimeIsOver(t *testing.T) {
	entries := 0
	app := sw.NewApp("test", sw.Function("f", sw.On(), func(ctx sw.Context, _ sw.Event[any]) (any, error) {
		entries++
		return nil, sw.Sleep(ctx, time.Hour, sw.Name(strings.Repeat("x", entries)))
	}, sw.Timeout(2*time.Hour)))
	env := newEnv(t, app)
	env.Reenter = true
	run := start(t, env, "f", nil)
	env.Advance(time.Hour)
	env.Advance(time.Hour)
	if run.Status() != sw.StatusTimedOut {
		t.Fatal(run.Status(), run.Failure())
	}
}

func TestCodeThatIsNotDeterministicShowsWhenEnteredAgain(t *testing.T) {
	entries := 0
	app := sw.NewApp("test", sw.Function("f", sw.On(), func(ctx sw.Context, _ sw.Event[any]) (any, error) {
		entries++
		if entries > 1 {
			return nil, do(ctx, "pause")
		}
		return nil, sw.Sleep(ctx, time.Hour, sw.Name("pause"))
	}))
	env := newEnv(t, app)
	env.Reenter = true
	run := start(t, env, "f", nil)
	env.Advance(time.Hour)
	if run.Status() != sw.StatusPaused || !strings.Contains(run.Failure().Message, "the journal holds sleep, the code asks for run") {
		t.Fatal(run.Status(), run.Failure())
	}
}

func TestConditionsAreTheTestsToEvaluate(t *testing.T) {
	app := sw.NewApp("test",
		sw.Function("big", sw.On("order/placed").If("event.data.total > 10"), func(ctx sw.Context, _ sw.Event[fields]) (bool, error) {
			_, came, err := sw.WaitForEvent[any](ctx, "order/paid", sw.If("async.data.ok"), sw.Timeout(time.Hour))
			return came, err
		}))
	env := newEnv(t, app)
	if _, err := env.Send("order/placed", fields{"total": 50}); !errors.Is(err, sw.ErrUsage) {
		t.Fatal(err)
	}
	env.Condition = func(condition string, event, awaited *sw.Event[json.RawMessage]) bool {
		if awaited != nil {
			return condition == "async.data.ok" && strings.Contains(string(awaited.Data), "true")
		}
		return strings.Contains(string(event.Data), "50")
	}
	if runs, err := env.Send("order/placed", fields{"total": 5}); err != nil || len(runs) != 0 {
		t.Fatal(runs, err)
	}
	run := sendOne(t, env, "order/placed", fields{"total": 50})
	for _, ok := range []bool{false, true} {
		if run.Status() != sw.StatusParked {
			t.Fatal(run.Status())
		}
		if _, err := env.Send("order/paid", fields{"ok": ok}); err != nil {
			t.Fatal(err)
		}
	}
	if !resultOf[bool](t, run) {
		t.Fatal("it timed out")
	}
}

func TestWhatIsDeclaredWronglyIsSaid(t *testing.T) {
	code := func(sw.Context, sw.Event[any]) (any, error) { return nil, nil }
	fine := sw.Function("fine", sw.On("a/b", "a/*"), code, sw.Retries(0))
	cases := map[string]*sw.App{
		"an app's name":           sw.NewApp("no spaces"),
		"a function's name":       sw.NewApp("a", sw.Function("", sw.On(), code)),
		"no code":                 sw.NewApp("a", sw.Function[any, any]("f", sw.On(), nil)),
		"a wildcard inside":       sw.NewApp("a", sw.Function("f", sw.On("a/*/b"), code)),
		"too many triggers":       sw.NewApp("a", sw.Function("f", sw.On(strings.Split("a b c d e f g h i j k", " ")...), code)),
		"a long condition":        sw.NewApp("a", sw.Function("f", sw.On("a").If(strings.Repeat("x", 2049)), code)),
		"negative retries":        sw.NewApp("a", sw.Function("f", sw.On(), code, sw.Retries(-1))),
		"a factor below one":      sw.NewApp("a", sw.Function("f", sw.On(), code, sw.Retry{Factor: 0.5})),
		"no time at all":          sw.NewApp("a", sw.Function("f", sw.On(), code, sw.Timeout(0))),
		"too much time":           sw.NewApp("a", sw.Function("f", sw.On(), code, sw.Timeout(367*24*time.Hour))),
		"a negative start":        sw.NewApp("a", sw.Function("f", sw.On(), code, sw.StartTimeout(-1))),
		"the same function twice": sw.NewApp("a", sw.Function("f", sw.On(), code), sw.Function("f", sw.On(), code)),
		"a function of two apps":  func() *sw.App { sw.NewApp("one", fine); return sw.NewApp("two", fine) }(),
	}
	for name, app := range cases {
		_, err := sw.NewTestEnv(app)
		if !errors.Is(err, sw.ErrRegistration) || !errors.Is(err, sw.ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
		if served := app.Serve(context.Background()); served == nil || served.Error() != err.Error() {
			t.Errorf("%s: %v", name, served)
		}
	}
	if fine.ID() != "one/fine" {
		t.Error(fine.ID())
	}
}
