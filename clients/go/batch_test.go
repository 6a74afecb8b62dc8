// Functions that take batches: in a worker, and in the test kit.

package stepwell_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sw "stepwell.example/stepwell"
	stepwellv1 "stepwell.example/stepwell/v1"
)

type item struct {
	N int `json:"n"`
}

// listing is a function whose step and output name all events of its run.
func listing() *sw.App {
	code := func(ctx sw.Context, events []sw.Event[item]) (string, error) {
		var seen []string
		for _, one := range events {
			seen = append(seen, one.ID+"="+string(rune('0'+one.Data.N)))
		}
		if err := sw.Sleep(ctx, time.Hour); err != nil {
			return "", err
		}
		return sw.Run(ctx, "list", func(context.Context) (string, error) { return strings.Join(seen, " "), nil })
	}
	return sw.NewApp("test", sw.BatchFunction("listing", sw.On("item/added"), sw.Batch{MaxSize: 3, Timeout: time.Second}, code))
}

func added(id string, data string) *stepwellv1.Event {
	return &stepwellv1.Event{Id: id, Name: "item/added", Data: &stepwellv1.Payload{Data: []byte(data)}}
}

func TestABatchFunctionSeesAllItsEventsInOrderEachTimeItIsEntered(t *testing.T) {
	s := newFakeServer(t)
	able := welcome(1)
	able.Capabilities = []string{"flow"}
	s.greet = func(*link) (*stepwellv1.Welcome, error) { return able, nil }
	working(t, s, listing())
	l := s.link()
	assign := func(turn uint32) *stepwellv1.Assign {
		one := assignOf("run_1", "listing", turn)
		one.Event = added("evt_b", `{"n":2}`)
		one.Events = []*stepwellv1.Event{one.Event, added("evt_a", `{"n":1}`), added("evt_c", `{"n":3}`)}
		return one
	}
	l.work(&stepwellv1.Work{Assigns: []*stepwellv1.Assign{assign(1)}})
	l.waitFor(has((*stepwellv1.Commands).GetParks))
	l.end(status.Error(codes.Unavailable, "the node is gone"))
	s.change(func() { able.Refused = []*stepwellv1.Resident{{RunId: "run_1", Turn: 1}} })
	l = s.link()
	again := assign(2)
	again.Journal = []*stepwellv1.Outcome{{Key: "sleep", Kind: stepwellv1.StepKind_STEP_KIND_SLEEP, Result: &stepwellv1.Outcome_Output{}}}
	l.work(&stepwellv1.Work{Assigns: []*stepwellv1.Assign{again}})
	done := l.waitFor(has((*stepwellv1.Commands).GetCompletes)).Completes[0]
	if string(done.Output.Data) != `"evt_b=2 evt_a=1 evt_c=3"` {
		t.Fatal(done)
	}
}

func TestARunOfOneEventIsABatchOfOne(t *testing.T) {
	env, err := sw.NewTestEnv(listing())
	if err != nil {
		t.Fatal(err)
	}
	sent, err := env.Send("item/added", item{7})
	if err != nil {
		t.Fatal(err)
	}
	invoked, err := env.Start("listing", item{5})
	if err != nil {
		t.Fatal(err)
	}
	env.Advance(time.Hour)
	for run, want := range map[*sw.TestRun]string{sent[0]: "=7", invoked: "=5"} {
		var output string
		if err := run.Result(&output); err != nil || !strings.HasSuffix(output, want) || strings.Contains(output, " ") {
			t.Fatal(output, err)
		}
	}
}

func TestTheTestKitRunsABatch(t *testing.T) {
	env, err := sw.NewTestEnv(listing())
	if err != nil {
		t.Fatal(err)
	}
	env.Reenter = true
	run, err := env.StartBatch("listing", "item/added", item{3}, json.RawMessage(`{"n":1}`), item{2})
	if err != nil {
		t.Fatal(err)
	}
	env.Advance(time.Hour)
	var output string
	if err := run.Result(&output); err != nil {
		t.Fatal(err)
	}
	numbers := ""
	for _, one := range strings.Fields(output) {
		numbers += one[len(one)-1:]
	}
	if numbers != "312" {
		t.Fatal(output)
	}
	for _, refused := range []func() (*sw.TestRun, error){
		func() (*sw.TestRun, error) { return env.StartBatch("listing", "item/added") },
		func() (*sw.TestRun, error) { return env.StartBatch("listing", "item/added", 5) },
		func() (*sw.TestRun, error) { return env.StartBatch("other", "item/added", item{1}) },
	} {
		if _, err := refused(); !errors.Is(err, sw.ErrUsage) {
			t.Error(err)
		}
	}
}

func TestABatchWhoseEventDoesNotFitItsTypeFails(t *testing.T) {
	env, err := sw.NewTestEnv(listing())
	if err != nil {
		t.Fatal(err)
	}
	run, err := env.StartBatch("listing", "item/added", item{3}, map[string]string{"n": "three"})
	if err != nil {
		t.Fatal(err)
	}
	env.Advance(time.Hour)
	if run.Status() != sw.StatusFailed || run.Failure().Type != "SerializationError" {
		t.Fatal(run.Status(), run.Failure())
	}
}
