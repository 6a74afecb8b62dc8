// Workers that are killed, frozen, drained and refused; and workers of two languages.

package e2e

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	sw "stepwell.example/stepwell"
)

func TestGoAndPythonInvokeEachOther(t *testing.T) {
	w := newWorld(t)
	w.serve("shop")
	python := w.pythonWorker("billing.py")
	python.start()
	w.connected(python)

	if got := result[string](w, w.start("shop/buy", 42)); got != "r-42" {
		t.Errorf("Go invokes Python: %q", got)
	}
	if got := result[string](w, w.start("billing/deliver", 7)); got != "packed r-7 for 7" {
		t.Errorf("Python invokes Go: %q", got)
	}
	if got := result[string](w, w.start("shop/buy", 500)); got != "no money: StepError" {
		t.Errorf("a failure of Python in Go: %q", got)
	}
	err := w.start("billing/charge", map[string]int{"amount": 500}).Result(w.ctx, nil)
	var failed *sw.StepError
	if !errors.As(err, &failed) || failed.Failure().Cause.Type != "CardRefusedError" {
		t.Errorf("a failure of Python in the client: %v", err)
	}
}

func TestAParkedRunSurvivesItsWorker(t *testing.T) {
	w := newWorld(t)
	worker := w.serve("shop")
	event, err := w.client.GetEvent(w.ctx, w.send("user/signed.up", Signup{7, "Ada"}))
	if err != nil {
		t.Fatal(err)
	}
	run := w.client.Handle(event.RunIDs[0])
	w.parked(run)
	worker.kill()
	w.send("booking/created", Booking{7, "north"})
	worker.start()
	if got := result[string](w, run); got != "room north" {
		t.Fatal(got)
	}
	if n := w.executed(run.RunID, "send-welcome"); n != 1 {
		t.Fatalf("%d executions", n)
	}
}

func TestManyRunsShareFewPlaces(t *testing.T) {
	w := newWorld(t)
	w.serve("shop") // which has 20 places
	events := make([]sw.NewEvent, 300)
	for n := range events {
		events[n] = sw.NewEvent{Name: "crunch/go", Data: map[string]int{"n": 7}}
	}
	statuses, err := w.client.SendMany(w.ctx, events, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range statuses {
		event, err := w.client.GetEvent(w.ctx, status.EventID)
		if err != nil || len(event.RunIDs) != 1 {
			t.Fatal(event, err)
		}
		run := w.client.Handle(event.RunIDs[0])
		if got := result[int](w, run); got != 10+6+len("packed r for 7") {
			t.Fatal(got)
		}
		if n := w.executed(run.RunID, "one:3"); n != 1 {
			t.Fatalf("%d executions", n)
		}
	}
}

func TestAnExecutingBodyRunsAgainAfterKill9(t *testing.T) {
	w := newWorld(t)
	worker := w.serve("shop")
	run := w.start("shop/hold", None{})
	w.until("the body executes", func() bool { return w.executed(run.RunID, "guard") == 1 })
	worker.kill()
	worker.start()
	w.until("the body executes again", func() bool { return w.executed(run.RunID, "guard") == 2 })
	if _, err := run.Cancel(w.ctx, "enough"); err != nil {
		t.Fatal(err)
	}
	if err := run.Result(w.ctx, nil); !errors.Is(err, sw.ErrRunCancelled) {
		t.Fatal(err)
	}
}

func TestAWorkerThatDrainsGivesEverythingBack(t *testing.T) {
	w := newWorld(t)
	worker := w.serve("depot")
	other := w.worker("depot")
	var runs []*sw.RunHandle
	for range 5 {
		runs = append(runs, w.start("depot/sleepy", time.Hour.Milliseconds()))
	}
	for _, run := range runs {
		w.parked(run)
	}
	if err := worker.stop(); err != nil {
		t.Fatalf("%v:\n%s", err, worker.text())
	}
	workers, err := w.client.Workers(w.ctx)
	if err != nil || len(workers) != 0 {
		t.Fatalf("its session has not ended: %+v %v", workers, err)
	}
	other.start()
	w.connected(other)
	w.advance(time.Hour)
	for _, run := range runs {
		if got := result[string](w, run); got != "woke" {
			t.Fatal(got)
		}
	}
}

func TestAWorkerStopsWhenItsRegistrationIsRefused(t *testing.T) {
	w := newWorld(t)
	broken := w.worker("broken")
	broken.start()
	if err := <-broken.done; err == nil {
		t.Fatal("it ended without an error")
	}
	broken.cmd = nil
	if text := broken.text(); !strings.Contains(text, "BAD_EXPRESSION") {
		t.Fatal(text)
	}
}

func TestAServerThatIsRestartedFindsItsWorkersAgain(t *testing.T) {
	w := newWorld(t)
	w.serve("shop")
	run := w.start("shop/first_answer", None{})
	w.parked(run)
	guarded := w.start("shop/hold", None{})
	w.until("the body executes", func() bool { return w.executed(guarded.RunID, "guard") == 1 })
	w.server.kill()
	w.startServer()
	w.send("answer/mail", None{})
	if got := result[string](w, run); got != "mail" {
		t.Fatal(got)
	}
	if n := w.executed(guarded.RunID, "guard"); n != 1 {
		t.Fatalf("the body began %d times: its run should have stayed with its worker", n)
	}
	if state, err := guarded.Status(w.ctx); err != nil || state.Turn != 1 {
		t.Fatalf("%+v %v", state, err)
	}
}

func TestAServerThatLeavesCostsNoRunAnything(t *testing.T) {
	w := newWorld(t)
	worker := w.serve("shop")
	guarded := w.start("shop/hold", None{})
	w.until("the body executes", func() bool { return w.executed(guarded.RunID, "guard") == 1 })
	for range 3 {
		run := w.start("shop/first_answer", None{})
		w.parked(run)
		crunch := w.start("shop/crunch", map[string]int{"n": 7})
		if err := w.server.stop(); err != nil {
			t.Fatalf("%v:\n%s", err, w.server.text())
		}
		w.startServer()
		w.send("answer/phone", None{})
		if got := result[string](w, run); got != "phone" {
			t.Fatal(got)
		}
		if got := result[int](w, crunch); got != 10+6+len("packed r for 7") {
			t.Fatal(got)
		}
		for _, one := range []*sw.RunHandle{run, crunch, guarded} {
			if state, err := one.Status(w.ctx); err != nil || state.Turn != 1 {
				t.Fatalf("its worker should have kept it: %+v %v", state, err)
			}
		}
		if n := w.executed(crunch.RunID, "one:5"); n != 1 {
			t.Fatalf("%d executions", n)
		}
	}
	if n := w.executed(guarded.RunID, "guard"); n != 1 {
		t.Fatalf("the body began %d times", n)
	}
	text := worker.text()
	if strings.Count(text, "the server asks to connect elsewhere") != 3 {
		t.Error("the worker was not told")
	}
	for _, surprise := range []string{"the stream ended", "stopping all bodies"} {
		if strings.Contains(text, surprise) {
			t.Error(surprise)
		}
	}
}

func TestAFrozenWorkerLosesItsRunsAndStaysFenced(t *testing.T) {
	w := newWorld(t)
	worker := w.serve("shop")
	run := w.start("shop/hold", None{})
	w.until("the body executes", func() bool { return w.executed(run.RunID, "guard") == 1 })
	signal(t, worker, syscall.SIGSTOP)
	other := w.worker("shop")
	other.start()
	w.until("the run moves", func() bool { return w.executed(run.RunID, "guard") == 2 })
	signal(t, worker, syscall.SIGCONT)
	w.until("it comes back with another session", func() bool { return strings.Count(worker.text(), "INFO connected") == 2 })
	w.until("it serves again", func() bool {
		_, err := w.client.Start(w.ctx, "shop/ship", Receipt{})
		workers, listed := w.client.Workers(w.ctx)
		return err == nil && listed == nil && len(workers) == 2 && workers[0].Connected && workers[1].Connected
	})
	if _, err := run.Cancel(w.ctx, "enough"); err != nil {
		t.Fatal(err)
	}
	if err := run.Result(w.ctx, nil); !errors.Is(err, sw.ErrRunCancelled) {
		t.Fatal(err)
	}
	if n := w.executed(run.RunID, "release"); n != 1 {
		t.Fatalf("%d clean-ups", n)
	}
}

func TestAThawedWorkerBeginsNothingThatLayInItsSocket(t *testing.T) {
	w := newWorld(t)
	worker := w.serve("shop")
	signal(t, worker, syscall.SIGSTOP)
	run := w.start("shop/hold", None{})
	w.reached(run, "it is assigned", func(s *sw.RunState) bool { return s.Turn == 1 })
	other := w.worker("shop")
	other.start()
	w.until("the body executes elsewhere", func() bool { return w.executed(run.RunID, "guard") == 1 })
	signal(t, worker, syscall.SIGCONT)
	w.until("it comes back", func() bool { return strings.Count(worker.text(), "INFO connected") >= 2 })
	if n := w.executed(run.RunID, "guard"); n != 1 || !strings.Contains(worker.text(), "stood still") {
		t.Fatalf("%d executions\n%s", n, worker.text())
	}
	if _, err := run.Cancel(w.ctx, "enough"); err != nil {
		t.Fatal(err)
	}
	if err := run.Result(w.ctx, nil); !errors.Is(err, sw.ErrRunCancelled) {
		t.Fatal(err)
	}
}

func signal(t *testing.T, p *process, number syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(number); err != nil {
		t.Fatal(err)
	}
}
