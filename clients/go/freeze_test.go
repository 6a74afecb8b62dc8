// A worker whose process stood still, against a server that follows a script.

package stepwell_test

import (
	"sync/atomic"
	"testing"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"

	sw "stepwell.example/stepwell"
)

// freezing is a clock that can jump, as after a freeze of the process.
type freezing struct{ frozen atomic.Int64 }

func (c *freezing) now() time.Time { return time.Now().Add(time.Duration(c.frozen.Load())) }

// seldom is a Welcome whose heartbeats come so seldom that what arrives is read before the next one is due.
func seldom() *stepwellv1.Welcome {
	return &stepwellv1.Welcome{SessionId: "ses_1", Epoch: 1, LeaseMs: 60_000, HeartbeatMs: 60_000, Limits: &stepwellv1.Limits{}}
}

func TestH12cWhatLayInTheSocketWhileTheProcessWasFrozenPastItsLeaseBeginsNoBody(t *testing.T) {
	s, h, c := newFakeServer(t), newHung(), &freezing{}
	answer := seldom()
	s.greet = func(*link) (*stepwellv1.Welcome, error) { return answer, nil }
	working(t, s, appOf(h), sw.Clock(c.now))
	l := s.link()
	l.assign("run_1", "waits", 1)
	if began := <-h.began; began != "run_1" {
		t.Fatal(began)
	}
	s.change(func() { answer.Refused = []*stepwellv1.Resident{{RunId: "run_1", Turn: 1}} })
	c.frozen.Store(int64(50 * time.Second)) // eight tenths of the lease are 48
	l.assign("run_2", "waits", 1)
	again := s.link()
	if residents := again.residents(); len(residents) != 1 || residents["run_1"] != 1 {
		t.Fatal(residents)
	}
	again.assign("run_3", "waits", 1)
	if began := <-h.began; began != "run_3" {
		t.Fatal(began)
	}
}

func TestAfterAShortFreezeWhatHasArrivedIsApplied(t *testing.T) {
	s, h, c := newFakeServer(t), newHung(), &freezing{}
	s.greet = func(*link) (*stepwellv1.Welcome, error) { return seldom(), nil }
	working(t, s, appOf(h), sw.Clock(c.now))
	l := s.link()
	c.frozen.Store(int64(40 * time.Second))
	l.assign("run_1", "waits", 1)
	if began := <-h.began; began != "run_1" {
		t.Fatal(began)
	}
	if len(s.links) != 0 {
		t.Fatal("it connected again")
	}
}
