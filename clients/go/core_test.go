// What is Go's own in the core: goroutines that pass a baton, groups, races, panics, and code that does not keep to it.

package stepwell_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	sw "stepwell.example/stepwell"
	stepwellv1 "stepwell.example/stepwell/v1"
)

// entered is a core that has run its code from the start.
func entered[Out any](t *testing.T, code func(sw.Context) (Out, error), journal ...outcome) *sw.Core {
	t.Helper()
	function := sw.Function("f", sw.On(), func(ctx sw.Context, _ sw.Event[any]) (Out, error) { return code(ctx) })
	sw.NewApp("test", function)
	core := sw.NewCore(function, assignment{Journal: journal}.message(), &stepwellv1.Limits{}, patience)
	t.Cleanup(core.Evict)
	core.Start()
	return core
}

// command is the only one of its type among those of one decision.
func command[M proto.Message](t *testing.T, core *sw.Core) M {
	t.Helper()
	var found []M
	commands := core.Commands()
	for _, one := range commands {
		if match, ok := one.(M); ok {
			found = append(found, match)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d of %T in %v", len(found), *new(M), commands)
	}
	return found[0]
}

func begun(core *sw.Core) []string {
	var keys []string
	for _, body := range core.Bodies() {
		keys = append(keys, body.Key)
	}
	return keys
}

func TestCodeThatBlocksOutsideAStepIsNamed(t *testing.T) {
	var mutex sync.Mutex
	handed := make(chan int)
	cases := map[string]struct {
		state string
		code  func(sw.Context) error
	}{
		"a channel between branches": {"chan receive", func(ctx sw.Context) error {
			g := sw.NewGroup(ctx)
			g.Go("taker", func(sw.Context) error { <-handed; return nil })
			g.Go("giver", func(sw.Context) error { handed <- 1; return nil })
			return g.Wait()
		}},
		"a mutex held over a step": {"sync.Mutex.Lock", func(ctx sw.Context) error {
			g := sw.NewGroup(ctx)
			for range 2 {
				g.Go("", func(ctx sw.Context) error {
					mutex.Lock()
					defer mutex.Unlock()
					return do(ctx, "held")
				})
			}
			return g.Wait()
		}},
		"a wait group of goroutines": {"sync.WaitGroup.Wait", func(sw.Context) error {
			var all sync.WaitGroup
			all.Add(1)
			all.Wait()
			return nil
		}},
		"a sleep":  {"sleep", func(sw.Context) error { time.Sleep(time.Hour); return nil }},
		"a select": {"select", func(ctx sw.Context) error { <-ctx.Done(); return nil }},
	}
	for name, one := range cases {
		t.Run(name, func(t *testing.T) {
			core := entered(t, func(ctx sw.Context) (any, error) { return nil, one.code(ctx) })
			failure := command[*stepwellv1.Fail](t, core).Failure
			if failure.Type != "OutsideStepError" || !failure.NonRetriable {
				t.Fatalf("%v", failure)
			}
			if state := one.state; state != "select" && !strings.Contains(failure.Message, state+" at core_test.go:") {
				t.Fatal(failure.Message)
			}
			if !strings.Contains(failure.Message, "core_test.go:") {
				t.Fatal(failure.Message)
			}
		})
	}
}

func TestCodeThatComputesForLongIsLeftAlone(t *testing.T) {
	core := entered(t, func(ctx sw.Context) (int, error) {
		sum := 0
		for end := time.Now().Add(5 * patience); time.Now().Before(end); {
			sum++
		}
		return sum, do(ctx, "after")
	})
	if keys := begun(core); !slices.Equal(keys, []string{"after"}) {
		t.Fatal(keys, core.Commands())
	}
}

func TestStepsCalledFromElsewhereAreTypedErrors(t *testing.T) {
	cases := map[string]func(sw.Context) error{
		"a goroutine of the user's own": func(ctx sw.Context) error {
			failed := make(chan error)
			go func() { failed <- do(ctx, "free") }()
			return <-failed
		},
		"the context of the function in a branch": func(outer sw.Context) error {
			g := sw.NewGroup(outer)
			g.Go("", func(sw.Context) error { return do(outer, "mixed up") })
			return g.Wait()
		},
		"a value that makes a step while it is encoded": func(ctx sw.Context) error {
			_, err := sw.Invoke[any](ctx, "a/b", marshaller(func() error { return do(ctx, "nested") }))
			return err
		},
		"a group from a goroutine": func(ctx sw.Context) error {
			g := sw.NewGroup(ctx)
			done := make(chan struct{})
			go func() { g.Go("", func(sw.Context) error { return nil }); close(done) }()
			<-done
			return g.Wait()
		},
	}
	for name, code := range cases {
		t.Run(name, func(t *testing.T) {
			var said error
			core := entered(t, func(ctx sw.Context) (any, error) { said = code(ctx); return nil, said })
			failure := command[*stepwellv1.Fail](t, core).Failure
			if !errors.Is(said, sw.ErrOutsideStep) || !errors.Is(said, sw.ErrUsage) || !strings.Contains(failure.String(), "OutsideStepError") {
				t.Fatal(said, failure)
			}
		})
	}
}

// marshaller does something while it is encoded.
type marshaller func() error

func (m marshaller) MarshalJSON() ([]byte, error) { return nil, m() }

func TestAStepInABodyIsATypedError(t *testing.T) {
	app := sw.NewApp("test", sw.Function("f", sw.On(), func(ctx sw.Context, _ sw.Event[any]) (any, error) {
		return sw.Run(ctx, "outer", func(context.Context) (any, error) { return nil, do(ctx, "inner") })
	}))
	run := start(t, newEnv(t, app), "f", nil)
	if run.Status() != sw.StatusFailed || run.Failure().Cause.Type != "OutsideStepError" || !slices.Equal(run.Keys(), []string{"outer"}) {
		t.Fatal(run.Status(), run.Failure(), run.Keys())
	}
}

func TestBranchesHaveScopedKeys(t *testing.T) {
	core := entered(t, func(ctx sw.Context) (any, error) {
		g := sw.NewGroup(ctx)
		for _, name := range []string{"left", "right", ""} {
			g.Go(name, func(ctx sw.Context) error {
				inner := sw.NewGroup(ctx)
				inner.Go("in", func(ctx sw.Context) error { return do(ctx, "x") })
				inner.Go("in", func(ctx sw.Context) error { return do(ctx, "x") })
				return inner.Wait()
			})
		}
		return nil, g.Wait()
	})
	want := []string{"left/in/x", "left/in/x:2", "right/in/x", "right/in/x:2", "in/x", "in/x:2"}
	if keys := begun(core); !slices.Equal(keys, want) {
		t.Fatal(keys)
	}
}

func TestABranchThatFailsGivesUpTheOthers(t *testing.T) {
	var told, late error
	core := entered(t, func(ctx sw.Context) (any, error) {
		g := sw.NewGroup(ctx)
		g.Go("", func(ctx sw.Context) error { told = do(ctx, "a"); return told })
		g.Go("", func(sw.Context) error { return &ValueError{"no"} })
		g.Go("", func(ctx sw.Context) error { late = do(ctx, "c"); return late })
		return nil, g.Wait()
	})
	if failure := command[*stepwellv1.Fail](t, core).Failure; failure.Type != "ValueError" {
		t.Fatal(failure)
	}
	if !errors.Is(told, sw.ErrCancelled) || !errors.Is(told, context.Canceled) || !errors.Is(late, sw.ErrCancelled) {
		t.Fatal(told, late)
	}
	if keys := begun(core); keys != nil {
		t.Fatal("a body began all the same:", keys)
	}
}

func TestABranchMayCleanUpAfterItWasGivenUp(t *testing.T) {
	core := entered(t, func(ctx sw.Context) (any, error) {
		g := sw.NewGroup(ctx)
		g.Go("slow", func(ctx sw.Context) error {
			_ = do(ctx, "work")
			return do(ctx, "undo")
		})
		g.Go("", func(ctx sw.Context) error { return errors.Join(do(ctx, "quick"), errors.New("no")) })
		return nil, g.Wait()
	})
	core.Commands()
	begun(core)
	core.Finish("quick", 1, nil, nil, 0, 0)
	core.Ack(1)
	if keys := begun(core); !slices.Equal(keys, []string{"slow/undo"}) || !slices.Equal(core.Interrupts(), []string{"slow/work"}) {
		t.Fatal(keys)
	}
	core.Commands()
	core.Finish("slow/undo", 1, nil, nil, 0, 0)
	command[*stepwellv1.Fail](t, core)
}

func TestCancelReachesBranchesAndWaits(t *testing.T) {
	var waited, branch error
	core := entered(t, func(ctx sw.Context) (any, error) {
		g := sw.NewGroup(ctx)
		g.Go("", func(ctx sw.Context) error { branch = sw.Sleep(ctx, time.Hour); return nil })
		waited = g.Wait()
		if ctx.Err() == nil {
			return nil, errors.New("the context is not done")
		}
		return nil, do(ctx, "clean")
	})
	core.Commands()
	core.Cancel(&stepwellv1.Failure{Message: "no longer needed"})
	core.Ack(1)
	for _, told := range []error{waited, branch} {
		var why *sw.CancelledError
		if !errors.Is(told, sw.ErrCancelled) || !errors.As(told, &why) || why.Message != "no longer needed" {
			t.Fatal(waited, branch)
		}
	}
	if keys := begun(core); !slices.Equal(keys, []string{"clean"}) {
		t.Fatal(keys, core.Commands())
	}
}

func TestBranchesOfACancelledRunAreGivenUpOnce(t *testing.T) {
	core := entered(t, func(ctx sw.Context) (any, error) {
		g := sw.NewGroup(ctx)
		g.Go("quick", func(ctx sw.Context) error { return sw.Sleep(ctx, time.Hour) })
		g.Go("slow", func(ctx sw.Context) error {
			_ = sw.Sleep(ctx, time.Hour)
			return do(ctx, "undo")
		})
		return nil, g.Wait()
	})
	core.Commands()
	core.Cancel(&stepwellv1.Failure{Message: "no longer needed"})
	core.Ack(1)
	if keys := begun(core); !slices.Equal(keys, []string{"slow/undo"}) || core.Interrupts() != nil {
		t.Fatal(keys)
	}
	core.Finish("slow/undo", 1, nil, nil, 0, 0)
	command[*stepwellv1.Cancelled](t, core)
}

func TestWithinIsADurableTimeOut(t *testing.T) {
	code := func(ctx sw.Context) (string, error) {
		text, err := sw.Within(ctx, time.Minute, func(ctx sw.Context) (string, error) {
			return run[string](ctx, "slow")
		})
		if errors.Is(err, sw.ErrTimeout) {
			return "late", nil
		}
		return text, err
	}
	core := entered(t, code)
	if sleep := command[*stepwellv1.Sleep](t, core); sleep.Key != "timeout" || sleep.GetDurationMs() != 60_000 {
		t.Fatal(sleep)
	}
	core.Resolve(outcome{Key: "timeout", Kind: "SLEEP"}.message())
	if done := command[*stepwellv1.Complete](t, core); string(done.Output.Data) != `"late"` {
		t.Fatal(done)
	}
	again := entered(t, code, outcome{Key: "timeout", Kind: "SLEEP", Number: 1})
	if done := command[*stepwellv1.Complete](t, again); string(done.Output.Data) != `"late"` {
		t.Fatal(done)
	}
	quick := entered(t, code)
	quick.Commands()
	quick.Finish("slow", 1, "quick", nil, 0, 0)
	if done := command[*stepwellv1.Complete](t, quick); string(done.Output.Data) != `"quick"` {
		t.Fatal(done)
	}
}

func TestPanicsAreFailuresWithTheirStack(t *testing.T) {
	cases := map[string]func(sw.Context) error{
		"in the function": func(sw.Context) error { panic("boom") },
		"in a branch": func(ctx sw.Context) error {
			g := sw.NewGroup(ctx)
			g.Go("", func(sw.Context) error { panic("boom") })
			return g.Wait()
		},
		"an error": func(sw.Context) error { panic(fmt.Errorf("boom: %w", sw.NonRetriable(errors.New("for good")))) },
	}
	for name, code := range cases {
		t.Run(name, func(t *testing.T) {
			core := entered(t, func(ctx sw.Context) (any, error) { return nil, code(ctx) })
			failure := command[*stepwellv1.Fail](t, core).Failure
			if failure.Type != "PanicError" || !strings.Contains(failure.Stack, "core_test.go") || !strings.HasPrefix(failure.Message, "panic: boom") {
				t.Fatal(failure)
			}
			if failure.NonRetriable != (name == "an error") {
				t.Fatal(failure.NonRetriable)
			}
		})
	}
}

func TestGoexitIsNoSuccess(t *testing.T) {
	core := entered(t, func(sw.Context) (any, error) { runtime.Goexit(); return nil, nil })
	if failure := command[*stepwellv1.Fail](t, core).Failure; !strings.Contains(failure.Message, "Goexit") {
		t.Fatal(failure)
	}
}

func TestAnEvictedRunUnwindsWithoutAWord(t *testing.T) {
	before := runtime.NumGoroutine()
	var unwound, reached bool
	core := entered(t, func(ctx sw.Context) (any, error) {
		defer func() {
			unwound = true
			for { // a step of a fenced run does not return: this does not spin
				_ = do(ctx, "clean")
				reached = true
			}
		}()
		g := sw.NewGroup(ctx)
		g.Go("", func(ctx sw.Context) error {
			for {
				_ = do(ctx, "deaf")
			}
		})
		return nil, g.Wait()
	})
	core.Commands()
	core.Evict()
	if commands := core.Commands(); !unwound || reached || len(commands) > 0 {
		t.Fatal(unwound, reached, commands)
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are left", runtime.NumGoroutine()-before)
		}
	}
}

func TestTimeAndChanceAreTheSameInReplay(t *testing.T) {
	type draw struct {
		UUID string
		Dice []int
		Now  int64
	}
	code := func(ctx sw.Context) (drawn draw, err error) {
		drawn.UUID = sw.UUID(ctx)
		if err := do(ctx, "a"); err != nil {
			return drawn, err
		}
		for range 3 {
			drawn.Dice = append(drawn.Dice, sw.Random(ctx).IntN(1000))
		}
		drawn.Now = sw.Now(ctx).UnixMilli()
		return drawn, nil
	}
	live := entered(t, code)
	live.Finish("a", 1, nil, nil, 1500, 2500)
	one := command[*stepwellv1.Complete](t, live).Output.Data
	again := entered(t, code, outcome{Key: "a", Number: 1, TimeMs: 2500, Output: raw("null")})
	two := command[*stepwellv1.Complete](t, again).Output.Data
	if string(one) != string(two) || !strings.Contains(string(one), `"Now":2500`) {
		t.Fatalf("%s\n%s", one, two)
	}
	if uuid := read[draw](t, one).UUID; len(uuid) != 36 || uuid[14] != '4' || !strings.Contains("89ab", uuid[19:20]) {
		t.Fatal(uuid)
	}
}

func TestATimeOutOfNothingIsNotNoTimeOut(t *testing.T) {
	wait := entered(t, func(ctx sw.Context) (any, error) {
		_, came, err := sw.WaitForEvent[any](ctx, "a", sw.Timeout(0))
		return came, err
	})
	if ms := command[*stepwellv1.WaitForEvent](t, wait).TimeoutMs; ms != 1 {
		t.Fatal(ms)
	}
	invoke := entered(t, func(ctx sw.Context) (any, error) { return sw.Invoke[any](ctx, "a/b", nil, sw.Timeout(0)) })
	if ms := command[*stepwellv1.Invoke](t, invoke).TimeoutMs; ms != 1 {
		t.Fatal(ms)
	}
}

func TestEventsThatAreNoneAreNoStep(t *testing.T) {
	core := entered(t, func(ctx sw.Context) ([]string, error) { return sw.SendEvents(ctx, nil) })
	if end := command[*stepwellv1.Complete](t, core); end.Number != 1 || string(end.Output.Data) != "[]" {
		t.Fatal(end)
	}
}

func TestWhatCannotBeAskedForIsAnErrorAtTheCall(t *testing.T) {
	cases := map[string]struct {
		kind error
		code func(sw.Context) error
	}{
		"a negative sleep":   {sw.ErrUsage, func(ctx sw.Context) error { return sw.Sleep(ctx, -1) }},
		"a sleep too long":   {sw.ErrUsage, func(ctx sw.Context) error { return sw.Sleep(ctx, 367*24*time.Hour) }},
		"an instant too far": {sw.ErrUsage, func(ctx sw.Context) error { return sw.SleepUntil(ctx, time.Now().AddDate(2, 0, 0)) }},
		"an event with *": {sw.ErrUsage, func(ctx sw.Context) error {
			_, _, err := sw.WaitForEvent[any](ctx, "a/*")
			return err
		}},
		"an event of the server": {sw.ErrUsage, func(ctx sw.Context) error {
			_, _, err := sw.WaitForEvent[any](ctx, "stepwell/a")
			return err
		}},
		"data that is no object": {sw.ErrUsage, func(ctx sw.Context) error {
			_, err := sw.SendEvent(ctx, "a", []int{1})
			return err
		}},
		"an input without JSON": {sw.ErrSerialization, func(ctx sw.Context) error {
			_, err := sw.Invoke[any](ctx, "a/b", func() {})
			return err
		}},
		"too many attempts": {sw.ErrUsage, func(ctx sw.Context) error {
			_, err := sw.Run(ctx, "x", func(context.Context) (int, error) { return 0, nil }, sw.Retries(100))
			return err
		}},
		"a branch with #": {sw.ErrUsage, func(ctx sw.Context) error {
			g := sw.NewGroup(ctx)
			g.Go("a#b", func(sw.Context) error { return nil })
			return g.Wait()
		}},
		"a race of nobody": {sw.ErrUsage, func(ctx sw.Context) error { _, _, err := sw.Race[int](ctx); return err }},
	}
	for name, one := range cases {
		t.Run(name, func(t *testing.T) {
			var said error
			core := entered(t, func(ctx sw.Context) (any, error) { said = one.code(ctx); return nil, nil })
			command[*stepwellv1.Complete](t, core)
			if !errors.Is(said, one.kind) {
				t.Fatal(said)
			}
		})
	}
}
