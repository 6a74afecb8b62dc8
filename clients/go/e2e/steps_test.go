// What functions do with steps, failures, time-outs and cancellation, on a real server.

package e2e

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	sw "stepwell.example/stepwell"
)

func TestSteps(t *testing.T) {
	w := newWorld(t)
	w.serve("shop")

	w.check("steps run once, in sequence", stepsRunOnceInSequence)
	w.check("branches of a group have keys of their own", branchesOfAGroupHaveKeysOfTheirOwn)
	w.check("a wait takes the event that matches", aWaitTakesTheEventThatMatches)
	w.check("a wait times out with the clock", aWaitTimesOutWithTheClock)
	w.check("of two waits the first event wins", ofTwoWaitsTheFirstEventWins)
	w.check("events are sent once, together", eventsAreSentOnceTogether)
	w.check("a result above the limit fails its step for good", aResultAboveTheLimitFailsItsStepForGood)
	w.check("a large result passes", aLargeResultPasses)
}

func stepsRunOnceInSequence(t *testing.T, w *world) {
	event, err := w.client.GetEvent(w.ctx, w.send("order/placed", map[string]int{"n": 7}))
	if err != nil || len(event.RunIDs) != 1 {
		t.Fatalf("%+v %v", event, err)
	}
	run, err := w.client.WaitRun(w.ctx, event.RunIDs[0])
	if err != nil || string(run.Output) != `"abc for 7"` {
		t.Fatalf("%+v %v", run, err)
	}
	for _, key := range []string{"a", "b", "c"} {
		if n := w.executed(run.ID, key); n != 1 {
			t.Errorf("%s was executed %d times", key, n)
		}
	}
}

func branchesOfAGroupHaveKeysOfTheirOwn(t *testing.T, w *world) {
	run := w.start("shop/prices", []string{"fig", "plum"})
	if got := result[map[string]int](w, run); got["fig"] != 3 || got["plum"] != 4 {
		t.Fatalf("%v", got)
	}
	entries, err := w.client.Journal(w.ctx, run.RunID)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, entry := range entries {
		keys = append(keys, entry.Key)
	}
	slices.Sort(keys)
	if want := []string{"fig/price", "fig/sleep", "plum/price", "plum/sleep"}; !slices.Equal(keys, want) {
		t.Fatalf("%v", keys)
	}
}

func aWaitTakesTheEventThatMatches(t *testing.T, w *world) {
	event, err := w.client.GetEvent(w.ctx, w.send("user/signed.up", Signup{7, "Ada"}))
	if err != nil {
		t.Fatal(err)
	}
	run := w.client.Handle(event.RunIDs[0])
	state := w.parked(run)
	if len(state.WaitingFor) != 1 || state.WaitingFor[0].Kind != "EVENT" || state.WaitingFor[0].Event != "booking/created" {
		t.Fatalf("%+v", state.WaitingFor)
	}
	w.send("booking/created", Booking{8, "east"})
	w.send("booking/created", Booking{7, "west"})
	if got := result[string](w, run); got != "room west" {
		t.Fatal(got)
	}
}

func aWaitTimesOutWithTheClock(t *testing.T, w *world) {
	event, err := w.client.GetEvent(w.ctx, w.send("user/signed.up", Signup{9, "Bob"}))
	if err != nil {
		t.Fatal(err)
	}
	run := w.client.Handle(event.RunIDs[0])
	w.parked(run)
	w.advance(4 * 24 * time.Hour)
	if got := result[string](w, run); got != "reminded" {
		t.Fatal(got)
	}
}

func ofTwoWaitsTheFirstEventWins(t *testing.T, w *world) {
	run := w.start("shop/first_answer", None{})
	w.parked(run)
	w.send("answer/phone", None{})
	if got := result[string](w, run); got != "phone" {
		t.Fatal(got)
	}
}

func eventsAreSentOnceTogether(t *testing.T, w *world) {
	ids := result[[]string](w, w.start("shop/announce", []string{"one", "two"}))
	var titles []string
	for event, err := range w.client.ListEvents(w.ctx, sw.EventFilter{Name: "news/*"}) {
		if err != nil {
			t.Fatal(err)
		}
		titles = append(titles, string(event.Data))
	}
	if len(ids) != 2 || len(titles) != 2 {
		t.Fatalf("%v %v", ids, titles)
	}
}

func aResultAboveTheLimitFailsItsStepForGood(t *testing.T, w *world) {
	err := w.start("shop/large", 3<<20).Result(w.ctx, nil)
	var failed *sw.StepError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "result_bytes is 2097152") {
		t.Fatal(err)
	}
}

func aLargeResultPasses(t *testing.T, w *world) {
	if n := result[int](w, w.start("shop/large", 1<<20)); n != 1<<20 {
		t.Fatal(n)
	}
}

func TestFailures(t *testing.T) {
	w := newWorld(t)
	w.serve("shop")

	w.check("a body is tried again and knows why", aBodyIsTriedAgainAndKnowsWhy)
	w.check("the function is tried again over its journal", theFunctionIsTriedAgainOverItsJournal)
	w.check("an error that says so is not tried again, and keeps its type", anErrorThatSaysSoIsNotTriedAgainAndKeepsItsType)

	for _, where := range []string{"between", "body"} {
		w.check("a panic is a failure with its stack: "+where, func(t *testing.T, w *world) {
			state := w.reached(w.start("shop/panics", where), "it failed", func(s *sw.RunState) bool { return s.Status == sw.StatusFailed })
			failure := state.Failure
			if where == "body" {
				failure = failure.Cause
			}
			if failure.Type != "PanicError" || !strings.Contains(failure.Stack, "apps_test.go") {
				t.Fatalf("%+v", failure)
			}
		})
	}

	w.check("a body and code that take too long", aBodyAndCodeThatTakeTooLong)
	w.check("a cancelled run interrupts its body and cleans up", aCancelledRunInterruptsItsBodyAndCleansUp)
}

func aBodyIsTriedAgainAndKnowsWhy(t *testing.T, w *world) {
	run := w.start("shop/flaky", None{})
	if got := result[string](w, run); got != `attempt 3 after "after first"` {
		t.Fatal(got)
	}
	if n := w.executed(run.RunID, "call"); n != 3 {
		t.Fatalf("%d executions", n)
	}
}

func theFunctionIsTriedAgainOverItsJournal(t *testing.T, w *world) {
	run := w.start("shop/second_try", None{})
	if got := result[string](w, run); got != "attempt 2" {
		t.Fatal(got)
	}
	if n := w.executed(run.RunID, "work"); n != 1 {
		t.Fatalf("%d executions", n)
	}
}

func anErrorThatSaysSoIsNotTriedAgainAndKeepsItsType(t *testing.T, w *world) {
	err := w.start("shop/refused", None{}).Result(w.ctx, nil)
	var failed *sw.StepError
	if !errors.As(err, &failed) || !errors.Is(err, sw.ErrRunFailed) {
		t.Fatal(err)
	}
	cause := failed.Failure().Cause
	if failed.Type != "StepError" || cause == nil || cause.Type != "CardError" || cause.Message != "charging: card refused with 7" {
		t.Fatalf("%+v", failed.Failure())
	}
}

func aBodyAndCodeThatTakeTooLong(t *testing.T, w *world) {
	run := w.start("shop/slow", None{})
	w.parked(run)
	w.advance(time.Hour)
	if got := result[string](w, run); got != "both took too long" {
		t.Fatal(got)
	}
}

func aCancelledRunInterruptsItsBodyAndCleansUp(t *testing.T, w *world) {
	run := w.start("shop/hold", None{})
	w.until("the body executes", func() bool { return w.executed(run.RunID, "guard") == 1 })
	if _, err := run.Cancel(w.ctx, "changed my mind"); err != nil {
		t.Fatal(err)
	}
	if err := run.Result(w.ctx, nil); !errors.Is(err, sw.ErrRunCancelled) {
		t.Fatal(err)
	}
	if n := w.executed(run.RunID, "release"); n != 1 {
		t.Fatalf("%d clean-ups", n)
	}
}
