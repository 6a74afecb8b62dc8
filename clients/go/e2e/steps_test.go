package e2e

import (
	"context"
	"encoding/json"
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

	t.Run("steps run once, in sequence", func(t *testing.T) {
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
	})

	t.Run("branches of a group have keys of their own", func(t *testing.T) {
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
	})

	t.Run("a wait takes the event that matches", func(t *testing.T) {
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
	})

	t.Run("a wait times out with the clock", func(t *testing.T) {
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
	})

	t.Run("of two waits the first event wins", func(t *testing.T) {
		run := w.start("shop/first_answer", None{})
		w.parked(run)
		w.send("answer/phone", None{})
		if got := result[string](w, run); got != "phone" {
			t.Fatal(got)
		}
	})

	t.Run("events are sent once, together", func(t *testing.T) {
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
	})

	t.Run("a result above the limit fails its step for good", func(t *testing.T) {
		err := w.start("shop/large", 3<<20).Result(w.ctx, nil)
		var failed *sw.StepError
		if !errors.As(err, &failed) || !strings.Contains(err.Error(), "result_bytes is 2097152") {
			t.Fatal(err)
		}
	})

	t.Run("a large result passes", func(t *testing.T) {
		if n := result[int](w, w.start("shop/large", 1<<20)); n != 1<<20 {
			t.Fatal(n)
		}
	})
}

func TestFailures(t *testing.T) {
	w := newWorld(t)
	w.serve("shop")

	t.Run("a body is tried again and knows why", func(t *testing.T) {
		run := w.start("shop/flaky", None{})
		if got := result[string](w, run); got != `attempt 3 after "after first"` {
			t.Fatal(got)
		}
		if n := w.executed(run.RunID, "call"); n != 3 {
			t.Fatalf("%d executions", n)
		}
	})

	t.Run("the function is tried again over its journal", func(t *testing.T) {
		run := w.start("shop/second_try", None{})
		if got := result[string](w, run); got != "attempt 2" {
			t.Fatal(got)
		}
		if n := w.executed(run.RunID, "work"); n != 1 {
			t.Fatalf("%d executions", n)
		}
	})

	t.Run("an error that says so is not tried again, and keeps its type", func(t *testing.T) {
		err := w.start("shop/refused", None{}).Result(w.ctx, nil)
		var failed *sw.StepError
		if !errors.As(err, &failed) || !errors.Is(err, sw.ErrRunFailed) {
			t.Fatal(err)
		}
		cause := failed.Failure().Cause
		if failed.Type != "StepError" || cause == nil || cause.Type != "CardError" || cause.Message != "charging: card refused with 7" {
			t.Fatalf("%+v", failed.Failure())
		}
	})

	for _, where := range []string{"between", "body"} {
		t.Run("a panic is a failure with its stack: "+where, func(t *testing.T) {
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

	t.Run("a body and code that take too long", func(t *testing.T) {
		run := w.start("shop/slow", None{})
		w.parked(run)
		w.advance(time.Hour)
		if got := result[string](w, run); got != "both took too long" {
			t.Fatal(got)
		}
	})

	t.Run("a cancelled run interrupts its body and cleans up", func(t *testing.T) {
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
	})
}

func TestClient(t *testing.T) {
	w := newWorld(t)

	t.Run("the same event twice is one event", func(t *testing.T) {
		event := sw.NewEvent{Name: "demo/ordered", Data: map[string]int{"id": 1}, ID: "order-1", Metadata: map[string]string{"a": "b"}}
		one, err := w.client.Send(w.ctx, event)
		if err != nil {
			t.Fatal(err)
		}
		two, err := w.client.Send(w.ctx, event)
		if err != nil || one != two {
			t.Fatal(one, two, err)
		}
		stored, err := w.client.GetEvent(w.ctx, one)
		if err != nil || stored.SenderID != "order-1" || stored.Metadata["a"] != "b" || string(stored.Data) != `{"id":1}` {
			t.Fatalf("%+v %v", stored, err)
		}
	})

	t.Run("each event has its status", func(t *testing.T) {
		statuses, err := w.client.SendMany(w.ctx, []sw.NewEvent{{Name: "a/b"}, {Name: "stepwell/mine"}}, "")
		if err != nil || statuses[0].Outcome != "ACCEPTED" || statuses[1].Outcome != "REFUSED" || statuses[1].Reason != "RESERVED_NAME" {
			t.Fatalf("%+v %v", statuses, err)
		}
		_, err = w.client.Send(w.ctx, sw.NewEvent{Name: "stepwell/mine"})
		var refused *sw.APIError
		if !errors.As(err, &refused) || !errors.Is(err, sw.ErrInvalidArgument) || refused.Reason != "RESERVED_NAME" {
			t.Fatal(err)
		}
	})

	t.Run("errors name their reason", func(t *testing.T) {
		_, missing := w.client.GetRun(w.ctx, "run_none")
		_, unknown := w.client.Start(w.ctx, "no/such", nil)
		_, notEvent := w.client.GetEvent(w.ctx, "evt_none")
		_, notFunction := w.client.GetFunction(w.ctx, "no/such")
		for reason, err := range map[string]error{
			"RUN_NOT_FOUND": missing, "FUNCTION_NOT_FOUND": unknown, "EVENT_NOT_FOUND": notEvent,
		} {
			var refused *sw.APIError
			if !errors.As(err, &refused) || refused.Reason != reason || !errors.Is(err, sw.ErrNotFound) {
				t.Errorf("%s: %v", reason, err)
			}
		}
		if !errors.Is(notFunction, sw.ErrNotFound) {
			t.Error(notFunction)
		}
		for _, err := range w.client.ListRuns(w.ctx, sw.RunFilter{Statuses: []sw.RunStatus{"NO_SUCH"}}) {
			if !errors.Is(err, sw.ErrInvalidArgument) {
				t.Error(err)
			}
		}
	})

	t.Run("what cannot be sent is refused here", func(t *testing.T) {
		for _, event := range []sw.NewEvent{{Name: ""}, {Name: "a\n"}, {Name: "a*"}, {Name: "a", Data: []int{1}}, {Name: strings.Repeat("x", 257)}} {
			if _, err := w.client.Send(w.ctx, event); !errors.Is(err, sw.ErrUsage) {
				t.Errorf("%+v: %v", event, err)
			}
		}
		if _, err := w.client.Send(w.ctx, sw.NewEvent{Name: "a", Data: map[string]string{"x": strings.Repeat("x", 1<<20)}}); !errors.Is(err, sw.ErrLimit) {
			t.Error(err)
		}
		if _, err := w.client.Send(w.ctx, sw.NewEvent{Name: "a", Data: map[string]any{"x": func() {}}}); !errors.Is(err, sw.ErrSerialization) {
			t.Error(err)
		}
	})

	w.serve("shop")
	t.Run("it sees functions, workers, runs and the server", func(t *testing.T) {
		functions, err := w.client.Functions(w.ctx, "shop")
		if err != nil || len(functions) != 15 {
			t.Fatal(len(functions), err)
		}
		one, err := w.client.GetFunction(w.ctx, "shop/onboard")
		if err != nil || one.Triggers[0].Event != "user/signed.up" || one.Workers != 1 {
			t.Fatalf("%+v %v", one, err)
		}
		info, err := w.client.ServerInfo(w.ctx)
		if err != nil || info.Profile != "dev" || info.Database != "sqlite" {
			t.Fatalf("%+v %v", info, err)
		}
		run := w.start("shop/ship", Receipt{"r1", 5})
		if got := result[string](w, run); got != "packed r1 for 5" {
			t.Fatal(got)
		}
		var listed []string
		for state, err := range w.client.ListRuns(w.ctx, sw.RunFilter{App: "shop", Statuses: []sw.RunStatus{sw.StatusCompleted}}) {
			if err != nil {
				t.Fatal(err)
			}
			listed = append(listed, state.ID)
		}
		if !slices.Contains(listed, run.RunID) {
			t.Fatal(listed)
		}
		workers, err := w.client.Workers(w.ctx)
		if err != nil || len(workers) != 1 || workers[0].SDK != "go "+sw.Version || workers[0].Capacity != 20 {
			t.Fatalf("%+v %v", workers, err)
		}
	})

	t.Run("a request id makes the same run", func(t *testing.T) {
		one, err := w.client.Start(w.ctx, "shop/ship", Receipt{"r2", 5}, sw.RequestID("once"))
		if err != nil {
			t.Fatal(err)
		}
		two, err := w.client.Start(w.ctx, "shop/ship", Receipt{"r2", 5}, sw.RequestID("once"))
		if err != nil || one.RunID != two.RunID {
			t.Fatal(one, two, err)
		}
		var text string
		if err := w.client.Invoke(w.ctx, "shop/ship", Receipt{"r3", 6}, &text); err != nil || text != "packed r3 for 6" {
			t.Fatal(text, err)
		}
	})

	t.Run("it watches a run to its end, and events", func(t *testing.T) {
		ctx, cancel := context.WithCancel(w.ctx)
		defer cancel()
		seen := make(chan string, 100)
		go func() {
			for event, err := range w.client.WatchEvents(ctx, "user/*") {
				if err == nil {
					seen <- event.ID
				}
			}
		}()
		var id string
		w.until("an event is watched", func() bool {
			id = w.send("user/signed.up", Signup{1, "Eve"})
			select {
			case <-seen:
				return true
			case <-time.After(50 * time.Millisecond):
				return false
			}
		})
		stored, err := w.client.GetEvent(w.ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		go func() { w.send("booking/created", Booking{1, "south"}) }()
		var last sw.RunChange
		keys := map[string]bool{}
		for change, err := range w.client.WatchRun(w.ctx, stored.RunIDs[0]) {
			if err != nil {
				t.Fatal(err)
			}
			last = change
			for _, entry := range change.Entries {
				keys[entry.Key] = true
			}
		}
		if last.Run.Status != sw.StatusCompleted || !keys["send-welcome"] || !keys["booking/created"] {
			t.Fatalf("%+v %v", last.Run, keys)
		}
	})

	t.Run("waiting ends with its context, the run goes on", func(t *testing.T) {
		run := w.start("shop/first_answer", None{})
		ctx, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
		defer cancel()
		var text json.RawMessage
		if err := run.Result(ctx, &text); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		w.parked(run)
	})
}

func (w *world) advance(by time.Duration) {
	w.t.Helper()
	if moved, err := w.client.AdvanceClock(w.ctx, by, 0); err != nil || !moved.Complete {
		w.t.Fatalf("%+v %v", moved, err)
	}
}
