// What the client does on a real server.

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

func TestClient(t *testing.T) {
	w := newWorld(t)

	w.check("the same event twice is one event", theSameEventTwiceIsOneEvent)
	w.check("each event has its status", eachEventHasItsStatus)
	w.check("errors name their reason", errorsNameTheirReason)
	w.check("what cannot be sent is refused here", whatCannotBeSentIsRefusedHere)

	w.serve("shop")
	w.check("it sees functions, workers, runs and the server", itSeesFunctionsWorkersRunsAndTheServer)
	w.check("a request id makes the same run", aRequestIdMakesTheSameRun)
	w.check("it watches a run to its end, and events", itWatchesARunToItsEndAndEvents)
	w.check("waiting ends with its context, the run goes on", waitingEndsWithItsContextTheRunGoesOn)
}

func theSameEventTwiceIsOneEvent(t *testing.T, w *world) {
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
}

func eachEventHasItsStatus(t *testing.T, w *world) {
	statuses, err := w.client.SendMany(w.ctx, []sw.NewEvent{{Name: "a/b"}, {Name: "stepwell/mine"}}, "")
	if err != nil || statuses[0].Outcome != "ACCEPTED" || statuses[1].Outcome != "REFUSED" || statuses[1].Reason != "RESERVED_NAME" {
		t.Fatalf("%+v %v", statuses, err)
	}
	_, err = w.client.Send(w.ctx, sw.NewEvent{Name: "stepwell/mine"})
	var refused *sw.APIError
	if !errors.As(err, &refused) || !errors.Is(err, sw.ErrInvalidArgument) || refused.Reason != "RESERVED_NAME" {
		t.Fatal(err)
	}
}

func errorsNameTheirReason(t *testing.T, w *world) {
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
}

func whatCannotBeSentIsRefusedHere(t *testing.T, w *world) {
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
}

func itSeesFunctionsWorkersRunsAndTheServer(t *testing.T, w *world) {
	functions, err := w.client.Functions(w.ctx, "shop")
	if err != nil || len(functions) != 16 {
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
}

func aRequestIdMakesTheSameRun(t *testing.T, w *world) {
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
}

func itWatchesARunToItsEndAndEvents(t *testing.T, w *world) {
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
}

func waitingEndsWithItsContextTheRunGoesOn(t *testing.T, w *world) {
	run := w.start("shop/first_answer", None{})
	ctx, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
	defer cancel()
	var text json.RawMessage
	if err := run.Result(ctx, &text); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	w.parked(run)
}
