// Random programs under crashes: replaying what was recorded comes to what the run came to.

package stepwell_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	sw "stepwell.example/stepwell"
)

// instruction is one line of a random program.
type instruction struct {
	what     string
	name     string
	branches [][]instruction
}

// randomProgram draws a program; names repeat, so that keys do.
func randomProgram(chance *rand.Rand, depth int) []instruction {
	var program []instruction
	for range 1 + chance.IntN(4) {
		kinds := []string{"run", "run", "flaky", "broken", "panic", "sleep", "wait", "send", "child", "group", "race", "within"}
		plain := len(kinds) - 3
		at := chance.IntN(len(kinds))
		if depth == 0 {
			at %= plain
		}
		one := instruction{what: kinds[at], name: string(rune('a' + chance.IntN(3)))}
		for range 1 + chance.IntN(3) {
			if at >= plain {
				one.branches = append(one.branches, randomProgram(chance, depth-1))
			}
		}
		program = append(program, one)
	}
	return program
}

// perform executes a program; the trace is what its code saw, in order.
func perform(ctx sw.Context, program []instruction, trace *[]string) error {
	for _, one := range program {
		saw, err := performOne(ctx, one, trace)
		if errors.Is(err, sw.ErrCancelled) {
			return err
		}
		*trace = append(*trace, fmt.Sprintf("%s %s: %s %v", one.what, one.name, saw, err))
	}
	return nil
}

func performOne(ctx sw.Context, one instruction, trace *[]string) (saw string, err error) {
	body := func(fails int) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			if step := sw.CurrentStep(ctx); step.Attempt <= fails {
				return "", errors.New("not yet")
			}
			return "did " + sw.CurrentStep(ctx).Key, nil
		}
	}
	branch := func(program []instruction) func(sw.Context) error {
		return func(ctx sw.Context) error { return perform(ctx, program, trace) }
	}
	switch one.what {
	case "run":
		return sw.Run(ctx, one.name, body(0))
	case "flaky":
		return sw.Run(ctx, one.name, body(2))
	case "broken":
		return sw.Run(ctx, one.name, body(100), sw.Retries(1))
	case "panic":
		return sw.Run(ctx, one.name, func(context.Context) (string, error) { panic(one.name) }, sw.Retries(0))
	case "sleep":
		return "", sw.Sleep(ctx, time.Duration(len(*trace)%5)*time.Second, sw.Name("sleep-"+one.name))
	case "wait":
		_, came, err := sw.WaitForEvent[any](ctx, "event/"+one.name, sw.Timeout(7*time.Second))
		return fmt.Sprint(came), err
	case "send":
		return sw.SendEvent(ctx, "event/"+one.name, nil)
	case "child":
		return sw.Invoke[string](ctx, "child", one.name)
	case "group":
		g := sw.NewGroup(ctx)
		for i, program := range one.branches {
			g.Go([]string{"", one.name}[i%2], branch(program))
		}
		return "", g.Wait()
	case "race":
		var branches []func(sw.Context) (int, error)
		for _, program := range one.branches {
			branches = append(branches, func(ctx sw.Context) (int, error) { return len(program), branch(program)(ctx) })
		}
		winner, value, err := sw.Race(ctx, branches...)
		return fmt.Sprint(winner, value), err
	case "within":
		return sw.Within(ctx, 3*time.Second, func(ctx sw.Context) (string, error) { return "", branch(one.branches[0])(ctx) })
	}
	panic(one.what)
}

func randomApp(program []instruction) *sw.App {
	return sw.NewApp("random",
		sw.Function("main", sw.On(), func(ctx sw.Context, _ sw.Event[any]) (string, error) {
			var trace []string
			err := perform(ctx, program, &trace)
			return strings.Join(trace, "\n"), err
		}),
		sw.Function("child", sw.On(), func(ctx sw.Context, event sw.Event[string]) (string, error) {
			err := sw.Sleep(ctx, time.Second)
			return "child of " + event.Data, err
		}),
	)
}

// played is the run of a program with its output; each time that crash says so it is entered again.
func played(t *testing.T, program []instruction, crash func() bool) (run *sw.TestRun, output string) {
	t.Helper()
	env := newEnv(t, randomApp(program))
	env.CrashWhen(crash)
	run = start(t, env, "main", nil)
	for range 100 {
		if run.Status().Ended() {
			break
		}
		env.Advance(10 * time.Second)
	}
	if err := run.Result(&output); err != nil {
		t.Fatalf("%v %+v\n%v", err, run.Failure(), program)
	}
	return run, output
}

func TestRandomProgramsComeToTheSameInReplay(t *testing.T) {
	for seed := range uint64(400) {
		chance := rand.New(rand.NewPCG(seed, seed))
		program := randomProgram(chance, 2)
		live, output := played(t, program, func() bool { return false })
		if again := live.Replayed(patience); again != output {
			t.Fatalf("seed %d: live\n%s\nin replay\n%s", seed, output, again)
		}
		crashed, came := played(t, program, func() bool { return chance.IntN(4) == 0 })
		if again := crashed.Replayed(patience); again != came {
			t.Fatalf("seed %d, with crashes\n%s\nin replay\n%s", seed, came, again)
		}
	}
}
