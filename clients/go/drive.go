// The inside of the host: works the inboxes of runs off, executes what their code asks for, and forgets runs.

package stepwell

import (
	"runtime/debug"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// restingMax bounds the goroutines that wait for another run to drive: their stacks have grown to what that takes.
const restingMax = 32

// tell puts an item into a run's inbox. It waits there while the assignment still arrives. Needs the lock.
func (h *host) tell(one *resident, item func()) {
	one.inbox = append(one.inbox, item)
	if one.working || one.assign != nil {
		return
	}
	one.working = true
	select {
	case h.driven <- one:
		h.resting--
	default:
		go h.driver(one)
	}
}

// driver drives one run after another, as many goroutines as there are runs with something to do: a run that blocks holds
// up no other.
func (h *host) driver(one *resident) {
	for h.drive(one) {
		select {
		case one = <-h.driven:
		case <-h.over:
			return
		}
	}
}

// drive works an inbox off. It is the only goroutine of its run that calls the core. more tells to wait for another run.
func (h *host) drive(one *resident) (more bool) {
	for {
		h.mu.Lock()
		if len(one.inbox) == 0 {
			one.working = false
			h.release()
			h.settleIdle()
			if more = h.resting < restingMax; more {
				h.resting++
			}
			h.mu.Unlock()
			return more
		}
		item := one.inbox[0]
		one.inbox = rest(one.inbox)
		h.mu.Unlock()
		if h.protected(one, item) {
			h.settle(one)
		}
	}
}

// protected calls into a core. Should that break its own rules, the run is forgotten here, and the others live on.
func (h *host) protected(one *resident, item func()) (ok bool) {
	defer func() {
		if broken := recover(); broken != nil {
			h.log.Error("a run broke the worker's own rules; it is forgotten here", "run_id", one.runID, "panic", broken, "stack", string(debug.Stack()))
			h.mu.Lock()
			defer h.mu.Unlock()
			h.evict(one)
		}
	}()
	item()
	return true
}

// settle takes what the code left behind: one decision. Commands go out, bodies begin and are interrupted.
func (h *host) settle(one *resident) {
	core := one.core
	if core == nil {
		return // it was evicted before it began
	}
	for _, key := range core.interrupts {
		if a := one.attempts[key]; a != nil {
			delete(one.attempts, key)
			h.bodies.drop(a)
		}
	}
	core.interrupts = nil
	bodies := core.bodies
	if h.submit(one) {
		core.bodies = nil
		for _, body := range bodies {
			put(&one.attempts, body.key, h.bodies.start(body, func(a *attempt) { h.ended(one, a) }))
		}
	}
	h.mu.Lock()
	one.executing = len(one.attempts)
	h.mu.Unlock()
}

// submit queues the commands of a decision and notes where the run stands; false if its bodies must not begin.
func (h *host) submit(one *resident) bool {
	core := one.core
	commands := core.takeCommands()
	h.mu.Lock()
	defer h.mu.Unlock()
	if one.evicted {
		return false
	}
	var entries []entry
	if one.resend {
		one.resend = false
		entries = split(one.runID, core.unacknowledged())
	} else if len(commands) > 0 {
		entries = []entry{{runID: one.runID, commands: commands}}
	}
	if h.stream != nil {
		h.outgoing = append(h.outgoing, entries...)
		h.stream.wake()
	}
	one.pending = core.outbox.pending()
	one.endNumber, one.trace, one.ending = core.endNumber, core.trace, core.ending
	h.residents.setParked(one, core.state == stateParked)
	if core.settled() {
		h.settled(one)
	}
	return !h.draining
}

// settled forgets a run that is fenced, or whose end is durable; of an end its span is made. Needs the lock.
func (h *host) settled(one *resident) {
	one.evicted = true
	h.residents.remove(one)
	if one.trace != nil && one.ending.status != "" {
		one.trace.End(one.ending.status, one.ending.failure)
	}
}

// ended takes a body that has really ended.
func (h *host) ended(one *resident, a *attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if one.evicted {
		return
	}
	h.tell(one, func() {
		if one.attempts[a.body.key] == a {
			delete(one.attempts, a.body.key)
			one.core.finish(a.body.key, a.body.attempt, a.value, a.err, a.startedMs, a.endedMs)
		}
	})
}

// evict forgets a run: its code is fenced before it unwinds, so that what it does meanwhile is not heard (H3). Needs the lock.
func (h *host) evict(one *resident) {
	if one.evicted {
		return
	}
	one.evicted = true
	h.residents.remove(one)
	one.inbox, one.assign = nil, nil
	h.tell(one, func() {
		if one.core != nil {
			one.core.evict()
		}
		for _, a := range one.attempts {
			h.bodies.drop(a)
		}
		clear(one.attempts)
	})
}

// release gives the longest parked runs back: those beyond maxParked, all of them in a draining host. A run with results
// under way stays, they would be lost with the stream; so does one that is about to go on. Needs the lock.
func (h *host) release() {
	most := h.maxParked
	if h.draining {
		most = 0
	}
	excess := h.residents.parked.Len() - most
	for at := h.residents.parked.Front(); at != nil && excess > 0; {
		one := at.Value.(*resident)
		at = at.Next()
		if one.pending || one.working || one.resend || h.stream == nil {
			continue
		}
		release := &stepwellv1.Release{RunId: one.runID, Turn: one.turn}
		h.outgoing = append(h.outgoing, entry{runID: one.runID, commands: []command{release}})
		h.stream.wake()
		h.evict(one)
		excess--
	}
}

// settleIdle tells whoever drains that nothing executes and nothing is under way any more. Needs the lock.
func (h *host) settleIdle() {
	if !h.draining || h.isIdle {
		return
	}
	for _, one := range h.residents.runs {
		if one.working || one.executing > 0 || one.pending {
			return
		}
	}
	h.isIdle = true
	close(h.idle)
}
