// The worker against a server that follows a script.

package stepwell_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sw "stepwell.example/stepwell"
	stepwellv1 "stepwell.example/stepwell/v1"
)

// hung is a body that says when it begins and when it was interrupted.
type hung struct{ began, interrupted chan string }

func newHung() *hung { return &hung{make(chan string, 10), make(chan string, 10)} }

func (h *hung) body(ctx context.Context) (string, error) {
	step := sw.CurrentStep(ctx)
	h.began <- step.RunID
	<-ctx.Done()
	h.interrupted <- step.RunID
	return "", ctx.Err()
}

// three is a function of three steps; waits executes the hung body, then cleans up; sleeps parks.
func appOf(h *hung) *sw.App {
	value := func(v int) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { return v, nil }
	}
	three := func(ctx sw.Context, _ sw.Event[any]) (sum int, err error) {
		for n := range 3 {
			got, err := sw.Run(ctx, fmt.Sprint("s", n+1), value(n+1))
			if err != nil {
				return 0, err
			}
			sum += got
		}
		return sum, nil
	}
	waits := func(ctx sw.Context, _ sw.Event[any]) (string, error) {
		text, err := sw.Run(ctx, "hang", h.body)
		_, failed := sw.Run(ctx, "clean", value(1))
		return text, errors.Join(err, failed)
	}
	sleeps := func(ctx sw.Context, _ sw.Event[any]) (int, error) {
		one, err := sw.Run(ctx, "one", value(20))
		if err != nil {
			return 0, err
		}
		return one, sw.Sleep(ctx, 24*time.Hour)
	}
	blocks := func(ctx sw.Context, _ sw.Event[any]) (any, error) {
		h.began <- "blocks"
		<-h.interrupted
		return nil, nil
	}
	large := func(ctx sw.Context, _ sw.Event[any]) (any, error) {
		g := sw.NewGroup(ctx)
		for n := range 3 {
			g.Go(fmt.Sprint(n), func(ctx sw.Context) error {
				_, err := sw.Run(ctx, "make", func(context.Context) (string, error) { return strings.Repeat("x", 2<<20), nil })
				return err
			})
		}
		return nil, g.Wait()
	}
	return sw.NewApp("test", sw.Function("three", sw.On(), three), sw.Function("waits", sw.On(), waits),
		sw.Function("sleeps", sw.On(), sleeps), sw.Function("blocks", sw.On(), blocks), sw.Function("large", sw.On(), large))
}

func has[T any](list func(*stepwellv1.Commands) []T) func(*stepwellv1.Commands) bool {
	return func(c *stepwellv1.Commands) bool { return len(list(c)) > 0 }
}

func TestARunGoesFromItsAssignmentToItsEnd(t *testing.T) {
	s := newFakeServer(t)
	working(t, s, appOf(newHung()), sw.Capacity(7), sw.Instance("me"), sw.Environment("staging"))
	l := s.link()
	hello := l.hello[0]
	if hello.App != "test" || hello.Deployment != "d" || hello.Capacity != 7 || hello.Instance != "me" || hello.Environment != "staging" ||
		hello.Sdk != "go" || hello.SdkVersion != sw.Version || len(hello.Functions) != 5 || hello.SessionId != "" {
		t.Fatal(hello)
	}
	l.assign("run_1", "three", 1)
	for n := range uint64(3) {
		commands := l.commands()
		if len(commands.Results) != 1 || commands.Results[0].Number != n+1 || commands.Epoch != 1 {
			t.Fatal(commands)
		}
		if n == 2 && (len(commands.Completes) != 1 || string(commands.Completes[0].Output.Data) != "6" || commands.Completes[0].Number != 4) {
			t.Fatal("the last result and the end share a frame", commands)
		}
	}
	l.beat(func(beat *stepwellv1.Heartbeat) bool { return beat.Residents == 0 && beat.FramesRead > 4 })
}

func TestAnEvictedRunIsInterruptedAndSaysNothingMore(t *testing.T) {
	s, h := newFakeServer(t), newHung()
	working(t, s, appOf(h))
	l := s.link()
	l.assign("run_1", "waits", 1)
	<-h.began
	l.work(&stepwellv1.Work{Evicts: []*stepwellv1.Evict{{RunId: "run_1", Turn: 1}}})
	<-h.interrupted
	l.assign("run_2", "three", 1)
	if commands := l.commands(); commands.Results[0].RunId != "run_2" {
		t.Fatal(commands)
	}
}

func TestACancelledRunUnwindsWithCleanUpSteps(t *testing.T) {
	s, h := newFakeServer(t), newHung()
	working(t, s, appOf(h))
	l := s.link()
	l.assign("run_1", "waits", 1)
	<-h.began
	l.work(&stepwellv1.Work{Cancels: []*stepwellv1.Cancel{{RunId: "run_1", Turn: 1}}})
	l.work(&stepwellv1.Work{Cancels: []*stepwellv1.Cancel{{RunId: "run_1", Turn: 1}}})
	<-h.interrupted
	commands := l.waitFor(has((*stepwellv1.Commands).GetCancelled))
	if commands.Results[0].Key != "clean" {
		t.Fatal(commands)
	}
}

func TestALongJournalArrivesInPartsAndAnOutcomeMayComeBetween(t *testing.T) {
	s := newFakeServer(t)
	working(t, s, appOf(newHung()))
	l := s.link()
	assign := assignOf("run_1", "sleeps", 1)
	assign.More = true
	l.work(&stepwellv1.Work{Assigns: []*stepwellv1.Assign{assign}})
	slept := outcome{Key: "sleep", Kind: "SLEEP"}.message()
	l.work(&stepwellv1.Work{Outcomes: []*stepwellv1.Outcome{slept}})
	seen := outcome{Key: "one", Number: 1, Output: raw("20")}.message()
	l.work(&stepwellv1.Work{JournalParts: []*stepwellv1.JournalPart{{
		RunId: "run_1", Turn: 1, Journal: []*stepwellv1.Outcome{seen}, More: true,
	}, {RunId: "run_1", Turn: 1, Open: []*stepwellv1.OpenKey{{Key: "sleep", Kind: stepwellv1.StepKind_STEP_KIND_SLEEP}}}}})
	commands := l.commands()
	if len(commands.Completes) != 1 || string(commands.Completes[0].Output.Data) != "20" || len(commands.Sleeps) != 0 {
		t.Fatal(commands)
	}
}

func TestBlockedCodeStopsNeitherHeartbeatsNorOtherRuns(t *testing.T) {
	s, h := newFakeServer(t), newHung()
	working(t, s, appOf(h))
	l := s.link()
	l.assign("run_1", "blocks", 1)
	<-h.began
	for range 3 {
		l.beat(func(beat *stepwellv1.Heartbeat) bool { return beat.Residents == 1 })
	}
	l.assign("run_2", "three", 1)
	l.waitFor(has((*stepwellv1.Commands).GetCompletes))
	h.interrupted <- "go on"
	if commands := l.waitFor(has((*stepwellv1.Commands).GetCompletes)); commands.Completes[0].RunId != "run_1" {
		t.Fatal(commands)
	}
}

func TestHeartbeatsCarryTheResidentsAsOfTheFramesRead(t *testing.T) {
	// The worked examples of proto/README.md.
	const one, two = "run_0192a0b1c2d30123456789abcdef01234567", "run_0192a0b1c2d4fedcba98765432100123abcd"
	s := newFakeServer(t)
	working(t, s, appOf(newHung()))
	l := s.link()
	l.assign(one, "sleeps", 1)
	l.beat(func(beat *stepwellv1.Heartbeat) bool {
		return beat.Residents == 1 && beat.ResidentHash == 0xa6c9251d60f83ff9
	})
	l.assign(two, "sleeps", 3)
	both := l.beat(func(beat *stepwellv1.Heartbeat) bool { return beat.Residents == 2 })
	if both.ResidentHash != 0xbfaf75b44de070b8 || both.Epoch != 1 || both.FramesRead < 3 {
		t.Fatal(both)
	}
	l.work(&stepwellv1.Work{Evicts: []*stepwellv1.Evict{{RunId: one, Turn: 1}}})
	left := l.beat(func(beat *stepwellv1.Heartbeat) bool { return beat.Residents == 1 })
	if left.ResidentHash != 0x18e65096ece830bf {
		t.Fatal(left)
	}
}

func TestAfterALostStreamResidentsAreNamedAndResultsAreSentAgain(t *testing.T) {
	s := newFakeServer(t)
	s.silent = true
	working(t, s, appOf(newHung()))
	l := s.link()
	l.assign("run_1", "three", 7)
	first := l.commands().Results[0]
	s.change(func() { s.greet = func(*link) (*stepwellv1.Welcome, error) { return welcome(2), nil } })
	l.end(nil)
	again := s.link()
	if again.hello[0].SessionId != "ses_1" || !maps.Equal(again.residents(), map[string]uint32{"run_1": 7}) {
		t.Fatal(again.hello)
	}
	if commands := again.commands(); commands.Epoch != 2 || len(commands.Results) != 1 || !equal(commands.Results[0], first) {
		t.Fatal(commands)
	}
	again.work(&stepwellv1.Work{Acks: []*stepwellv1.Ack{{RunId: "run_1", Turn: 7, Number: 1}}})
	if commands := again.commands(); commands.Results[0].Number != 2 {
		t.Fatal(commands)
	}
}

func TestRunsThatWelcomeRefusesAreForgotten(t *testing.T) {
	s := newFakeServer(t)
	s.silent = true
	working(t, s, appOf(newHung()))
	l := s.link()
	l.assign("run_1", "three", 1)
	l.commands()
	s.change(func() {
		s.greet = func(*link) (*stepwellv1.Welcome, error) {
			refusing := welcome(2)
			refusing.Refused = []*stepwellv1.Resident{{RunId: "run_1", Turn: 1}}
			return refusing, nil
		}
	})
	l.end(nil)
	again := s.link()
	again.beat(func(beat *stepwellv1.Heartbeat) bool { return beat.Residents == 0 })
	again.assign("run_2", "three", 1)
	if commands := again.commands(); len(commands.Results) != 1 || commands.Results[0].RunId != "run_2" {
		t.Fatal(commands)
	}
}

func TestARefusedCommandEvictsItsRun(t *testing.T) {
	for _, reason := range []string{"NOT_RESIDENT", "BAD_COMMAND"} {
		s := newFakeServer(t)
		s.silent = true
		working(t, s, appOf(newHung()))
		l := s.link()
		l.assign("run_1", "three", 1)
		l.commands()
		l.work(&stepwellv1.Work{Refused: []*stepwellv1.Refused{{RunId: "run_1", Turn: 1, Key: "s1", Reason: reason}}})
		l.beat(func(beat *stepwellv1.Heartbeat) bool { return beat.Residents == 0 && beat.ResidentHash == 0 })
	}
}

func TestSilenceForMostOfALeaseStopsTheBodiesAndAnotherStreamIsTriedBefore(t *testing.T) {
	s, h := newFakeServer(t), newHung()
	streams := 0
	s.greet = func(*link) (*stepwellv1.Welcome, error) {
		if streams++; streams == 2 {
			return nil, nil
		}
		short := welcome(1)
		short.LeaseMs = 1_000
		return short, nil
	}
	working(t, s, appOf(h))
	l := s.link()
	l.assign("run_1", "waits", 1)
	<-h.began // from here on the server says nothing: this one sends no empty frames
	again := s.link()
	if !maps.Equal(again.residents(), map[string]uint32{"run_1": 1}) {
		t.Fatal(again.hello)
	}
	<-h.interrupted
	again.end(nil)
	last := s.link()
	if len(last.residents()) != 0 || last.hello[0].SessionId != "ses_1" {
		t.Fatal(last.hello)
	}
}

func TestAServerThatDrainsIsLeftOnlyForAnotherStream(t *testing.T) {
	s, h := newFakeServer(t), newHung()
	s.silent = true
	working(t, s, appOf(h))
	l := s.link()
	l.assign("run_1", "three", 1)
	first := l.commands()
	s.change(func() { s.greet = func(*link) (*stepwellv1.Welcome, error) { return welcome(2), nil } })
	l.out <- &stepwellv1.ConnectResponse{Frame: &stepwellv1.ConnectResponse_Drain{Drain: &stepwellv1.Drain{ReconnectAfterMs: 1, Reason: "deploy"}}}
	again := s.link()
	if !maps.Equal(again.residents(), map[string]uint32{"run_1": 1}) {
		t.Fatal(again.hello)
	}
	if commands := again.commands(); commands.Epoch != 2 || !equal(commands.Results[0], first.Results[0]) {
		t.Fatal(commands)
	}
	for range l.frames { // the old stream ends once the new one is there
	}
}

func TestAStreamThatEndsWhileItIsLeftIsFollowedByAnother(t *testing.T) {
	s, h := newFakeServer(t), newHung()
	s.silent = true
	working(t, s, appOf(h))
	l := s.link()
	l.assign("run_1", "three", 1)
	first := l.commands()
	stopping := true
	s.change(func() {
		s.greet = func(*link) (*stepwellv1.Welcome, error) {
			if stopping {
				stopping = false
				l.end(status.Error(codes.Unavailable, "the server leaves"))
				return nil, status.Error(codes.Unavailable, "the server leaves")
			}
			return welcome(2), nil
		}
	})
	l.out <- &stepwellv1.ConnectResponse{Frame: &stepwellv1.ConnectResponse_Drain{Drain: &stepwellv1.Drain{ReconnectAfterMs: 1}}}
	again := s.link()
	if !maps.Equal(again.residents(), map[string]uint32{"run_1": 1}) {
		t.Fatal(again.hello)
	}
	if commands := again.commands(); commands.Epoch != 2 || !equal(commands.Results[0], first.Results[0]) {
		t.Fatal(commands)
	}
}

func TestAnUnreachableServerIsTriedAgainUntilItIsThere(t *testing.T) {
	s := newFakeServer(t)
	s.grpc.Stop()
	working(t, s, appOf(newHung()))
	time.Sleep(100 * time.Millisecond) // some attempts fail
	s.listen(s.address)
	s.link()
}

func TestParkedRunsBeyondTheBoundAreReleased(t *testing.T) {
	s := newFakeServer(t)
	working(t, s, appOf(newHung()), sw.MaxParked(2))
	l := s.link()
	var parked, released []string
	for n := range 4 {
		l.assign(fmt.Sprint("run_", n), "sleeps", 1)
		for len(parked) <= n || len(released) < n-1 {
			commands := l.commands()
			for _, one := range commands.Parks {
				parked = append(parked, one.RunId)
			}
			for _, one := range commands.Releases {
				released = append(released, one.RunId)
			}
		}
	}
	l.beat(func(beat *stepwellv1.Heartbeat) bool { return beat.Residents == 2 })
	if len(released) != 2 || released[0] == released[1] {
		t.Fatal(released)
	}
}

func TestADrainingWorkerLetsBodiesFinishGivesParkedRunsBackAndSaysGoodbye(t *testing.T) {
	s := newFakeServer(t)
	proceed, began := make(chan struct{}), make(chan struct{})
	app := sw.NewApp("test",
		sw.Function("slow", sw.On(), func(ctx sw.Context, _ sw.Event[any]) (any, error) {
			_, err := sw.Run(ctx, "body", func(context.Context) (int, error) { close(began); <-proceed; return 1, nil })
			if err != nil {
				return nil, err
			}
			return sw.Run(ctx, "next", func(context.Context) (int, error) { panic("no body begins any more") })
		}),
		sw.Function("sleeps", sw.On(), func(ctx sw.Context, _ sw.Event[any]) (any, error) { return nil, sw.Sleep(ctx, time.Hour) }))
	stop, ended := working(t, s, app, sw.DrainTimeout(within))
	l := s.link()
	l.assign("run_1", "slow", 1)
	l.assign("run_2", "sleeps", 1)
	<-began
	l.waitFor(has((*stepwellv1.Commands).GetParks))
	stop()
	said := map[string]bool{}
	for !said["capacity"] || !said["release run_2"] {
		frame := l.frame()
		if capacity := frame.GetCapacity(); capacity != nil && capacity.Capacity == 0 {
			said["capacity"] = true
		}
		for _, one := range frame.GetCommands().GetReleases() {
			said["release "+one.RunId] = true
		}
	}
	close(proceed)
	if commands := l.commands(); commands.Results[0].Key != "body" {
		t.Fatal(commands)
	}
	if goodbye := l.frame().GetGoodbye(); goodbye == nil || goodbye.Reason == "" {
		t.Fatal("no Goodbye follows")
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestLargeResultsOfOneRunTravelInFramesOfTheirOwnAlsoWhenSentAgain(t *testing.T) {
	s := newFakeServer(t)
	s.silent = true
	working(t, s, appOf(newHung()))
	l := s.link()
	l.assign("run_1", "large", 1)
	numbers := func(l *link) (all []uint64) {
		for len(all) < 3 {
			results := l.commands().Results
			if len(results) != 1 {
				t.Fatalf("%d results of 2 MiB in one frame", len(results))
			}
			all = append(all, results[0].Number)
		}
		return all
	}
	if all := numbers(l); !slices.Equal(all, []uint64{1, 2, 3}) {
		t.Fatal(all)
	}
	l.end(nil)
	if all := numbers(s.link()); !slices.Equal(all, []uint64{1, 2, 3}) {
		t.Fatal(all)
	}
}

func TestTheSameAssignmentTwiceIsOneAndAHigherTurnReplacesALowerOne(t *testing.T) {
	s, h := newFakeServer(t), newHung()
	working(t, s, appOf(h))
	l := s.link()
	l.assign("run_1", "waits", 1)
	<-h.began
	l.assign("run_1", "waits", 1)
	l.assign("run_1", "waits", 2)
	<-h.interrupted
	<-h.began
	l.work(&stepwellv1.Work{Cancels: []*stepwellv1.Cancel{{RunId: "run_1", Turn: 1}}})
	l.assign("run_2", "three", 1)
	l.waitFor(has((*stepwellv1.Commands).GetCompletes))
	if len(h.began) > 0 || len(h.interrupted) > 0 {
		t.Fatal("the run began twice, or a Cancel of the older turn reached it")
	}
}
