// Functions whose time is over.

package e2e

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	sw "stepwell.example/stepwell"
)

const day = 24 * time.Hour

// claims are what a desk waits for, longer than a claim may take.
func claims() *sw.App {
	return sw.NewApp("claims",
		sw.Function("claim", sw.On(), claim, sw.Timeout(14*day), sw.StartTimeout(time.Hour)),
		sw.Function("desk", sw.On(), desk))
}

func claim(ctx sw.Context, _ sw.Event[None]) (string, error) {
	_, _, err := sw.WaitForEvent[None](ctx, "claim/decided")
	var why *sw.CancelledError
	if !errors.As(err, &why) {
		return "decided", err
	}
	_, failed := sw.Run(ctx, "close", note(why.Message))
	return "", errors.Join(err, failed)
}

func desk(ctx sw.Context, event sw.Event[int64]) (string, error) {
	_, err := sw.Invoke[string](ctx, "claim", None{}, sw.Timeout(time.Duration(event.Data)*day))
	var failed *sw.StepError
	switch {
	case errors.Is(err, sw.ErrTimeout) && errors.Is(err, sw.ErrRunTimedOut):
		return "", errors.New("the two time-outs cannot be told apart")
	case errors.Is(err, sw.ErrTimeout):
		return "the call took too long", nil
	case errors.As(err, &failed) && errors.Is(err, sw.ErrRunTimedOut):
		return failed.Message, nil
	}
	return "", err
}

func TestTimeOutsOfFunctions(t *testing.T) {
	w := newWorld(t)
	worker := w.serve("claims")

	w.check("a function says how long it may take", aFunctionSaysHowLongItMayTake)
	w.check("a run whose time is over is unwound and told why", aRunWhoseTimeIsOverIsUnwoundAndToldWhy)
	w.check("a parent tells the two time-outs apart", aParentTellsTheTwoTimeOutsApart)
	if err := worker.stop(); err != nil {
		t.Fatal(err)
	}
	w.check("a run that nobody starts ends", aRunThatNobodyStartsEnds)
}

func aFunctionSaysHowLongItMayTake(t *testing.T, w *world) {
	info, err := w.client.GetFunction(w.ctx, "claims/claim")
	if err != nil || info.Timeout != 14*day || info.StartTimeout != time.Hour {
		t.Fatalf("%+v %v", info, err)
	}
}

func aRunWhoseTimeIsOverIsUnwoundAndToldWhy(t *testing.T, w *world) {
	run := w.start("claims/claim", None{})
	if state := w.parked(run); !state.Deadline.Equal(state.Started.Add(14 * day)) {
		t.Fatalf("%+v", state)
	}
	w.advance(14 * day)
	err := run.Result(w.ctx, nil)
	if !errors.Is(err, sw.ErrRunTimedOut) || errors.Is(err, sw.ErrTimeout) || errors.Is(err, sw.ErrRunCancelled) {
		t.Fatal(err)
	}
	state, err := run.Status(w.ctx)
	if err != nil || state.Status != sw.StatusTimedOut || state.Failure.Reason != "TIMED_OUT" || !state.Deadline.IsZero() {
		t.Fatalf("%+v %v", state, err)
	}
	entries, err := w.client.Journal(w.ctx, run.RunID)
	if err != nil {
		t.Fatal(err)
	}
	closed := slices.IndexFunc(entries, func(one sw.JournalEntry) bool { return one.Key == "close" })
	if closed < 0 || string(entries[closed].Output) != `"`+state.Failure.Message+`"` {
		t.Fatalf("%+v", entries)
	}
}

func aParentTellsTheTwoTimeOutsApart(t *testing.T, w *world) {
	patient, hasty := w.start("claims/desk", 20), w.start("claims/desk", 2)
	for _, run := range []*sw.RunHandle{patient, hasty} {
		w.parked(run)
	}
	w.advance(14 * day)
	if got := result[string](w, patient); !strings.HasPrefix(got, "the run had not ended 14d") {
		t.Error(got)
	}
	if got := result[string](w, hasty); got != "the call took too long" {
		t.Error(got)
	}
}

func aRunThatNobodyStartsEnds(t *testing.T, w *world) {
	run := w.start("claims/claim", None{})
	w.advance(time.Hour)
	err := run.Result(w.ctx, nil)
	if !errors.Is(err, sw.ErrRunTimedOut) || !strings.Contains(err.Error(), "had not started") {
		t.Fatal(err)
	}
}
