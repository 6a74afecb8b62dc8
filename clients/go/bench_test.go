// What a run of three bodies costs: in its core, and from its assignment to its end in a worker, without a network.

package stepwell

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

func benched() (*App, *stepwellv1.Limits) {
	body := func(context.Context) (string, error) { return "a result of some length", nil }
	three := Function("three", On("bench/start"), func(ctx Context, _ Event[any]) (result string, err error) {
		for range 3 {
			if result, err = Run(ctx, "body", body); err != nil {
				return "", err
			}
		}
		return result, nil
	})
	return NewApp("bench", three), &stepwellv1.Limits{KeyBytes: 128, ResultBytes: 1 << 20, JournalSteps: 10_000, Branches: 1000}
}

func benchedAssign(runID string) *stepwellv1.Assign {
	return &stepwellv1.Assign{
		RunId: runID, Turn: 1, FunctionId: "bench/three", CreatedMs: 1000,
		Event: &stepwellv1.Event{Id: "evt_1", Name: "bench/start", Data: &stepwellv1.Payload{Data: []byte(`{"n":1}`)}},
	}
}

// BenchmarkReentry enters a run whose journal holds its three results.
func BenchmarkReentry(b *testing.B) {
	app, limits := benched()
	log := slog.New(slog.DiscardHandler)
	var journal []*stepwellv1.Outcome
	for n, key := range []string{"body", "body:2", "body:3"} {
		journal = append(journal, &stepwellv1.Outcome{
			Key: key, Number: uint64(n + 1), Kind: kindRun, Attempt: 1, TimeMs: 1000,
			Result: &stepwellv1.Outcome_Output{Output: &stepwellv1.Payload{Data: []byte(`"a result of some length"`)}},
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		assign := benchedAssign("run_1")
		assign.Journal = journal
		core := newReentry(app.order[0], assign, limits, context.Background(), log)
		core.start()
		if commands := core.takeCommands(); len(commands) != 1 || core.state != stateEnded {
			b.Fatal(commands)
		}
	}
}

// BenchmarkRun assigns runs to a host, 64 at a time; a writer packs what they say, and acknowledges it.
func BenchmarkRun(b *testing.B) {
	app, limits := benched()
	h := newHost(app, context.Background(), workerSettings{log: slog.New(slog.DiscardHandler), now: time.Now, maxParked: 1000})
	s := &stream{host: h, welcome: &stepwellv1.Welcome{}, began: time.Now(), signal: make(chan struct{}, 1)}
	h.opened(s, &stepwellv1.Welcome{Limits: limits}, nil)
	assigned, ended := 0, 0
	assign := func(work *stepwellv1.Work) {
		work.Assigns = append(work.Assigns, benchedAssign("run_"+strconv.Itoa(assigned)))
		assigned++
	}
	b.ReportAllocs()
	b.ResetTimer()
	work := &stepwellv1.Work{}
	for assigned < min(b.N, 64) {
		assign(work)
	}
	for h.apply(s, work); ended < b.N; h.apply(s, work) {
		<-s.signal
		entries, _ := h.take(s)
		work = &stepwellv1.Work{}
		for _, frame := range pack(entries, 1) {
			for _, one := range frame.GetCommands().GetResults() {
				work.Acks = append(work.Acks, &stepwellv1.Ack{RunId: one.RunId, Turn: one.Turn, Number: one.Number})
			}
			for _, one := range frame.GetCommands().GetCompletes() {
				work.Acks = append(work.Acks, &stepwellv1.Ack{RunId: one.RunId, Turn: one.Turn, Number: one.Number})
				if ended++; assigned < b.N {
					assign(work)
				}
			}
		}
	}
}
