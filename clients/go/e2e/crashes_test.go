// kill -9 of server and workers at seeded moments, under a load of runs with all kinds of steps.

package e2e

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	sw "stepwell.example/stepwell"
)

const (
	crunches = 40
	kills    = 8
	// A run that is lost five times without progress is paused, and rightly so.
	workerKillsMost = 4
)

// TestNothingIsLostDoubledOrStuckUnderKill9 kills worker and server at seeded moments while runs of all kinds of steps are
// under way, and compares what each came to.
func TestNothingIsLostDoubledOrStuckUnderKill9(t *testing.T) {
	w := newWorld(t)
	workers := []*process{w.serve("shop"), w.serve("shop")}
	chance := rand.New(rand.NewPCG(7, 7))
	started := make(chan map[int]string, 1)
	go func() {
		events := map[int]string{}
		for n := range crunches {
			id, err := w.client.Send(w.ctx, sw.NewEvent{Name: "crunch/go", Data: map[string]int{"n": n}})
			if err != nil {
				t.Error(err)
			}
			events[n] = id
			time.Sleep(100 * time.Millisecond)
		}
		started <- events
	}()
	workerKills := 0
	for range kills {
		time.Sleep(time.Duration(100+chance.IntN(700)) * time.Millisecond) // the moment of a kill: random on purpose
		if chance.IntN(2) == 0 || workerKills == workerKillsMost {
			w.server.kill()
			w.startServer()
			continue
		}
		workerKills++
		victim := workers[chance.IntN(2)]
		victim.kill()
		victim.start()
	}
	total := 5*4/2 + 2*(0+1+2)
	for n, eventID := range <-started {
		event, err := w.client.GetEvent(w.ctx, eventID)
		if err != nil || len(event.RunIDs) != 1 {
			t.Fatalf("event %d: %+v %v", n, event, err)
		}
		run := w.client.Handle(event.RunIDs[0])
		packed := len("packed r for ") + len(strconv.Itoa(n))
		if got := result[int](w, run); got != total+packed {
			t.Errorf("run %d came to %d, not %d", n, got, total+packed)
		}
		w.checkJournal(run.RunID)
	}
}

// checkJournal looks that each step of a crunch is there once, and that its bodies ran once for each loss at most.
func (w *world) checkJournal(runID string) {
	w.t.Helper()
	entries, err := w.client.Journal(w.ctx, runID)
	if err != nil {
		w.t.Fatal(err)
	}
	seen := map[string]bool{}
	for at, entry := range entries {
		if seen[entry.Key] || entry.Number != at+1 {
			w.t.Errorf("%s: entry %d is %+v", runID, at, entry)
		}
		seen[entry.Key] = true
		if entry.Kind != "RUN" {
			continue
		}
		if n := w.executed(runID, entry.Key); n < 1 || n > 1+workerKillsMost {
			w.t.Errorf("%s: the body of %s ran %d times", runID, entry.Key, n)
		}
	}
	for _, key := range []string{"one", "one:5", "left/two:3", "right/sleep:3", "shop/ship"} {
		if !seen[key] {
			w.t.Errorf("%s has no %s", runID, key)
		}
	}
}
