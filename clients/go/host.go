// Hosts runs: applies the server's frames to residents, runs their bodies, and keeps what goes out.
//
// A frame changes the table of residents at once, so that heartbeats are exact; what it says to the code of a run goes into
// the inbox of that run, which one goroutine at a time works off. So a run that computes or blocks holds up no other.

package stepwell

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

type host struct {
	app       *App
	base      context.Context // of the contexts of functions
	log       *slog.Logger
	now       func() time.Time // by which streams judge whether this process stood still
	maxParked int
	bodies    *bodies
	tracer    Tracer       // nil: nothing is traced
	aheadMs   atomic.Int64 // of the server's clock: that of a dev server may be days ahead

	mu         sync.Mutex
	residents  residents
	stream     *stream // the one to send on, nil while there is none
	framesRead uint64
	limits     *stepwellv1.Limits
	outgoing   []entry
	draining   bool
	idle       chan struct{} // closed once a draining host has nothing left to do
	isIdle     bool
	driven     chan *resident // to a driver that rests
	resting    int            // drivers
	over       chan struct{}  // closed when the worker has left
}

func newHost(app *App, base context.Context, settings workerSettings) *host {
	h := &host{
		app: app, base: base, log: settings.log, now: settings.now, maxParked: settings.maxParked, residents: newResidents(), idle: make(chan struct{}),
		driven: make(chan *resident), over: make(chan struct{}), tracer: settings.tracer,
	}
	h.bodies = &bodies{base: base, nowMs: h.nowMs, log: settings.log}
	return h
}

// nowMs is the server's time as far as it is known.
func (h *host) nowMs() int64 { return time.Now().UnixMilli() + h.aheadMs.Load() }

func (h *host) learnTime(serverMs int64) {
	if ahead := serverMs - time.Now().UnixMilli(); ahead > h.aheadMs.Load() {
		h.aheadMs.Store(ahead)
	}
}

// listing are the residents for Hello.
func (h *host) listing() []*stepwellv1.Resident {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.residents.listing()
}

// opened takes a stream that had its Welcome: from now on it is the one to send on. listed is what its Hello named.
func (h *host) opened(s *stream, welcome *stepwellv1.Welcome, listed []*stepwellv1.Resident) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stream, h.framesRead, h.limits = s, 1, welcome.GetLimits()
	if welcome.GetNowMs() > 0 {
		h.aheadMs.Store(welcome.GetNowMs() - time.Now().UnixMilli())
	}
	h.outgoing = nil // all of it is sent again below
	kept := map[string]uint32{}
	for _, one := range listed {
		kept[one.GetRunId()] = one.GetTurn()
	}
	for _, one := range welcome.GetRefused() {
		delete(kept, one.GetRunId())
	}
	for _, one := range h.residents.runs {
		// What Hello could not name is no longer this session's: the server has queued it anew.
		if turn, ok := kept[one.runID]; !ok || turn != one.turn {
			h.evict(one)
			continue
		}
		one.resend = true
		h.tell(one, func() {})
	}
	for runID, turn := range kept {
		if h.residents.runs[runID] == nil { // forgotten between Hello and Welcome
			h.outgoing = append(h.outgoing, entry{runID: runID, commands: []command{&stepwellv1.Release{RunId: runID, Turn: turn}}})
		}
	}
	s.wake()
}

// lost notes that a stream is gone. The session may be taken up again; meanwhile the runs go on.
func (h *host) lost(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stream == s {
		h.stream, h.outgoing = nil, nil // what is not acknowledged is sent again on the next stream
	}
}

// lapse gives everything up: the lease is nearly over, and the runs may be elsewhere soon (H12).
func (h *host) lapse() {
	h.evictAll()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outgoing = nil
}

func (h *host) evictAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, one := range h.residents.runs {
		h.evict(one)
	}
	h.settleIdle()
}

// drain begins no more bodies, and gives back what is parked.
func (h *host) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	h.release()
	h.settleIdle()
}

// send puts a frame of the worker itself behind what the runs have to say; false if there is no stream.
func (h *host) send(frame *stepwellv1.ConnectRequest) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stream == nil {
		return false
	}
	h.outgoing = append(h.outgoing, entry{frame: frame})
	h.stream.wake()
	return true
}

// take empties the way out for a stream's writer; the digest shows the residents once all of it is sent.
func (h *host) take(s *stream) ([]entry, digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stream != s {
		return nil, digest{}
	}
	entries := h.outgoing
	h.outgoing = nil
	return entries, digest{len(h.residents.runs), h.residents.hash, h.framesRead}
}

// apply takes a frame, in the order of its fields. Of a stream that was left, only facts about runs count.
func (h *host) apply(s *stream, work *stepwellv1.Work) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.overslept() {
		return
	}
	current := h.stream == s
	if current {
		h.framesRead++
	}
	for _, ack := range work.GetAcks() {
		h.applyAck(ack)
	}
	if current {
		for _, assign := range work.GetAssigns() {
			h.assign(assign)
		}
		for _, part := range work.GetJournalParts() {
			h.assignPart(part)
		}
	}
	for _, outcome := range work.GetOutcomes() {
		h.learnTime(outcome.GetTimeMs())
		if one := h.find(outcome.GetRunId(), outcome.GetTurn()); one != nil {
			h.tell(one, func() { one.core.resolve(outcome) })
		}
	}
	for _, cancel := range work.GetCancels() {
		if one := h.find(cancel.GetRunId(), cancel.GetTurn()); one != nil {
			h.tell(one, func() { one.core.cancel(cancel.GetFailure()) })
		}
	}
	if current {
		for _, evict := range work.GetEvicts() {
			if one := h.find(evict.GetRunId(), evict.GetTurn()); one != nil {
				h.evict(one)
			}
		}
		for _, refused := range work.GetRefused() {
			h.refused(refused)
		}
	}
	h.settleIdle()
}

func (h *host) find(runID string, turn uint32) *resident {
	if one := h.residents.runs[runID]; one != nil && one.turn == turn {
		return one
	}
	return nil
}

func (h *host) applyAck(ack *stepwellv1.Ack) {
	one := h.find(ack.GetRunId(), ack.GetTurn())
	switch {
	case one == nil:
	case one.endNumber > 0 && ack.GetNumber() >= one.endNumber:
		h.settled(one) // its code has ended already
	default:
		h.tell(one, func() { one.core.ack(ack.GetNumber()) })
	}
}

func (h *host) assign(assign *stepwellv1.Assign) {
	if before := h.residents.runs[assign.GetRunId()]; before != nil {
		if before.turn >= assign.GetTurn() {
			return // the same assignment twice
		}
		h.evict(before)
	}
	one := &resident{
		runID: assign.GetRunId(), turn: assign.GetTurn(), hash: runHash(assign.GetRunId(), assign.GetTurn()),
		assign: assign,
	}
	h.residents.add(one)
	if !assign.GetMore() {
		h.enter(one)
	}
}

func (h *host) assignPart(part *stepwellv1.JournalPart) {
	one := h.find(part.GetRunId(), part.GetTurn())
	if one == nil || one.assign == nil {
		return
	}
	one.assign.Journal = append(one.assign.Journal, part.GetJournal()...)
	one.assign.Open = append(one.assign.Open, part.GetOpen()...)
	if !part.GetMore() {
		h.enter(one)
	}
}

// enter runs the function's code for the first time, or again over its journal. What came in between follows.
func (h *host) enter(one *resident) {
	assign, limits := one.assign, h.limits
	one.assign = nil
	h.learnTime(assign.GetCreatedMs())
	_, name, _ := strings.Cut(assign.GetFunctionId(), "/")
	function := h.app.functions[name]
	if function == nil {
		h.log.Error("a run is of a function that this app has not got: forgotten", "run_id", one.runID, "function", assign.GetFunctionId())
		h.evict(one)
		return
	}
	early := one.inbox
	one.inbox = nil
	h.tell(one, func() {
		one.core = newReentry(function, assign, limits, h.base, h.log)
		if h.tracer != nil {
			one.core.trace = h.traceOf(function, assign)
		}
		for _, item := range early {
			item()
		}
		one.core.start()
	})
}

func (h *host) refused(refused *stepwellv1.Refused) {
	one := h.find(refused.GetRunId(), refused.GetTurn())
	if one == nil {
		return
	}
	if refused.GetReason() == "NOT_RESIDENT" {
		h.log.Warn("a run is no longer this worker's", "run_id", one.runID, "message", refused.GetMessage())
	} else {
		h.log.Error("a command was refused", "run_id", one.runID, "key", refused.GetKey(),
			"reason", refused.GetReason(), "message", refused.GetMessage())
	}
	h.evict(one)
}
