// The half of the re-entry core that faces the code of a run: calls get their keys, begin and are given up.

package stepwell

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// state is where the core is: NEW → EXECUTING ⇄ PARKED → ENDED; FENCED from anywhere.
type state string

const (
	stateNew       state = "NEW"
	stateExecuting state = "EXECUTING"
	stateParked    state = "PARKED"
	stateEnded     state = "ENDED"
	stateFenced    state = "FENCED"
)

// stuckAfter is how long code between steps may block before its run fails: then it is no mere hiccup.
const stuckAfter = 5 * time.Second

// reentry is one run in the worker's memory: the re-entry core. It does no I/O and reads no clock. reentry.go holds what
// faces the host. Its fields belong to whoever has the baton: the host's call, or the fiber that it runs.
type reentry struct {
	fn       *definition
	runID    string
	turn     uint32
	limits   *stepwellv1.Limits
	event    *stepwellv1.Event
	gathered []*stepwellv1.Event // all events of a run of a BatchFunction; event is the one that came first
	nowMs    int64
	base     context.Context // of the contexts of the code
	log      *slog.Logger
	patience time.Duration // stuckAfter, but for tests

	state state
	// Outcomes received in this turn, each counted once; whether cancel was delivered; the number that ended the run.
	received  uint64
	cancelled bool
	endNumber uint64
	ending    ending
	acked     uint64
	trace     RunTrace // set by the host; nil: nothing is traced
	// What the host takes after each call, with the commands of the outbox.
	bodies     []*bodyCall
	interrupts []string

	journal     *journal
	outbox      outbox
	keys        keys
	cancelAsked *CancelledError // what the code is to be told once it has started
	number      uint64
	// What must be durable before a body called now may begin.
	watermark uint64
	seen      map[string]bool // keys received in this turn
	calls     map[string]*call
	callSeq   uint64
	waiting   []*call // bodies that were called and have not begun
	executing map[string]*call
	due       []string // asked for after the outcome's turn had passed

	main   *fiber
	output any
	ready  []*fiber
	// running is the fiber that has the baton.
	running atomic.Pointer[fiber]
	back    chan struct{} // the baton, on its way back to the core
	clock   *time.Timer
	chance  chance
}

func newReentry(fn *definition, assign *stepwellv1.Assign, limits *stepwellv1.Limits, base context.Context, log *slog.Logger) *reentry {
	r := &reentry{
		fn: fn, runID: assign.GetRunId(), turn: assign.GetTurn(), limits: limits, event: assign.GetEvent(), gathered: assign.GetEvents(),
		nowMs: assign.GetCreatedMs(), base: base, log: log, patience: stuckAfter,
		state: stateNew, journal: newJournal(assign), outbox: outbox{runID: assign.GetRunId(), turn: assign.GetTurn()},
		keys: newKeys(limits), back: make(chan struct{}),
	}
	if n := len(r.journal.outcomes); n > 0 {
		r.number = r.journal.outcomes[n-1].GetNumber()
	}
	r.watermark, r.acked = r.number, r.number
	if assign.GetCancelled() {
		r.cancelAsked = cancelledBy(assign.GetCancelFailure())
	}
	return r
}

// over tells whether nothing that the code does is heard any more.
func (r *reentry) over() bool { return r.state == stateEnded || r.state == stateFenced }

// begin gives a call its key and begins the step, unless the journal or the server knows it already.
func (r *reentry) begin(c *call, name string) error {
	if most := int(r.limits.GetBranches()); most > 0 && len(r.calls) >= most {
		return limitError("step %s is one more than the %d open at once (branches)", name, most)
	}
	key, err := r.keys.give(name)
	if err != nil {
		return err
	}
	r.callSeq++
	c.key, c.seq, c.attempt = key, r.callSeq, 1
	put(&r.calls, key, c)
	if recorded, attempted, differ := r.journal.difference(c); differ {
		r.mismatch(c, recorded, attempted)
	}
	if r.journal.hasOutcome(key) {
		if r.journal.isDue(key) {
			r.due = append(r.due, key)
		}
		return nil
	}
	if tried, ok := r.journal.attempts[key]; ok && c.kind == kindRun {
		c.attempt, c.lastError = tried.attempt, tried.failure
		delete(r.journal.attempts, key)
	}
	if opened := r.journal.open[key]; opened != nil {
		c.openKey = opened.GetKey()
		delete(r.journal.open, key)
		return nil
	}
	if c.kind == kindRun {
		c.need = r.watermark
		r.waiting = append(r.waiting, c)
		return nil
	}
	c.openKey = key
	r.address(c)
	r.outbox.emit(c.command)
	return nil
}

// address fills in what all commands of a step have.
func (r *reentry) address(c *call) {
	switch command := c.command.(type) {
	case *stepwellv1.Sleep:
		command.RunId, command.Turn, command.Key = r.runID, r.turn, c.key
	case *stepwellv1.WaitForEvent:
		command.RunId, command.Turn, command.Key = r.runID, r.turn, c.key
	case *stepwellv1.Invoke:
		command.RunId, command.Turn, command.Key = r.runID, r.turn, c.key
	case *stepwellv1.SendEvents:
		command.RunId, command.Turn, command.Key = r.runID, r.turn, c.key
	}
}

// abandon gives a call up: it tells the server, unless that has not heard of it yet (H18).
func (r *reentry) abandon(c *call) {
	if r.calls[c.key] != c {
		return
	}
	delete(r.calls, c.key)
	if r.state != stateExecuting {
		return
	}
	if r.executing[c.key] == c {
		delete(r.executing, c.key)
		r.interrupts = append(r.interrupts, c.key)
		r.emitAbandon(c.key)
		return
	}
	if at := slices.Index(r.waiting, c); at >= 0 {
		r.waiting = slices.Delete(r.waiting, at, at+1)
		if c.attempt > 1 {
			r.emitAbandon(c.key)
		}
		return
	}
	if c.openKey == "" {
		return // recorded, or its outcome is here
	}
	// What began in this very decision is withdrawn. Events and a detached run should happen all the same.
	invoke, _ := c.command.(*stepwellv1.Invoke)
	lasting := c.kind == kindRun || c.kind == kindSend || invoke.GetDetached()
	if lasting || !r.outbox.withdraw(c.command) {
		r.emitAbandon(c.openKey)
	}
}

func (r *reentry) emitAbandon(key string) {
	r.outbox.emit(&stepwellv1.Abandon{RunId: r.runID, Turn: r.turn, Key: key})
}

// mismatch fences the run and unwinds the calling code: it asks for something else than its journal holds (H15).
func (r *reentry) mismatch(c *call, recorded, attempted string) {
	r.outbox.withdrawBeginnings()
	r.outbox.emit(&stepwellv1.Mismatch{
		RunId: r.runID, Turn: r.turn, Key: c.key, Recorded: recorded, Attempted: attempted, Location: location(),
	})
	r.state = stateFenced
	runtime.Goexit()
}

// put sets an item of a map that is made when it is first needed: of most runs few are.
func put[V any](items *map[string]V, key string, value V) {
	if *items == nil {
		*items = map[string]V{}
	}
	(*items)[key] = value
}

// rest is a queue without its first item. An empty one keeps its memory.
func rest[T any](queue []T) []T {
	if len(queue) > 1 {
		return queue[1:]
	}
	clear(queue)
	return queue[:0]
}

// wake lets a fiber go on once it is its turn.
func (r *reentry) wake(f *fiber) {
	f.call, f.awaits = nil, nil
	r.ready = append(r.ready, f)
}

// inOrder are calls in the order in which they were made.
func inOrder(calls map[string]*call) []*call {
	if len(calls) == 0 {
		return nil
	}
	return slices.SortedFunc(maps.Values(calls), func(a, b *call) int { return cmp.Compare(a.seq, b.seq) })
}

// timer is reused: at most one is needed at a time.
func (r *reentry) timer(d time.Duration) *time.Timer {
	if r.clock == nil {
		r.clock = time.NewTimer(d)
	} else {
		r.clock.Reset(d)
	}
	return r.clock
}
