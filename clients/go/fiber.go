// The goroutines of a run's code. They pass a baton: exactly one runs, the core's or one of these, and each runs until it
// waits for a step. So their order is repeatable, and the run is quiescent when none of them is ready (H1c).

package stepwell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// What a fiber does.
const (
	resting int32 = iota // it has no baton: it waits for a step, or for its turn
	running              // the user's code runs
	calling              // the user's code is inside this package
	lost                 // it blocked on something else, and the run went on without it
)

// fiber is one goroutine of a run's code: its function, or a branch of a group.
type fiber struct {
	core   *reentry
	prefix string // of its keys
	ctx    *runContext
	resume chan struct{}
	phase  atomic.Int32
	id     atomic.Uint64 // of its goroutine, once it has begun
	group  *Group        // the group it is a branch of
	// What it waits for: a call, or that branches end.
	call     *call
	awaits   *Group
	children []*fiber
	// It was given up while it did not wait: its next call says so, with this error.
	given   error
	unwinds bool // it was given up
	done    bool
	err     error
}

// newFiber makes a fiber whose code has not begun; it begins when it first gets the baton.
func newFiber(r *reentry, parent *fiber, prefix string, code func(Context) error) *fiber {
	f := &fiber{core: r, prefix: prefix, resume: make(chan struct{})}
	base := r.base
	if parent != nil {
		base = parent.ctx.Context
		parent.children = append(parent.children, f)
	}
	f.ctx = newRunContext(base, f)
	go fiberRoot(func() { f.live(code) })
	return f
}

// fiberRoot is the first function of each fiber's goroutine, and of no other: that is how one is recognised.
//
//go:noinline
func fiberRoot(live func()) { live() }

var fiberEntry = runtime.FuncForPC(reflect.ValueOf(fiberRoot).Pointer()).Entry()

// onFiber tells whether the calling goroutine is one that newFiber began.
func onFiber() bool {
	var few [64]uintptr
	callers := few[:]
	n := runtime.Callers(1, callers)
	for n == len(callers) {
		callers = make([]uintptr, 4*len(callers))
		n = runtime.Callers(1, callers)
	}
	return n >= 2 && runtime.FuncForPC(callers[n-2]).Entry() == fiberEntry // the last one is the runtime's
}

func (f *fiber) live(code func(Context) error) {
	<-f.resume
	defer f.end()
	f.id.Store(goroutineID())
	if f.core.over() {
		return
	}
	f.err = errGoexit
	f.leave()
	f.err = code(f.ctx)
}

var errGoexit = errors.New("the function's code left its goroutine by runtime.Goexit")

// end passes the baton on for the last time: the code returned, panicked, or was unwound by Goexit.
func (f *fiber) end() {
	if value := recover(); value != nil {
		f.err = &PanicError{Value: value, Stack: string(debug.Stack())}
	}
	if !f.phase.CompareAndSwap(running, resting) && !f.phase.CompareAndSwap(calling, resting) {
		return // it is lost: nobody waits for the baton any more
	}
	f.done = true
	f.ctx.stop(context.Canceled)
	if f.group != nil {
		f.group.ended(f)
	}
	f.core.back <- struct{}{}
}

// enter begins a call of the code into this package. Only the fiber's own goroutine may call, and only while it has the
// baton: a call of a run that is over, or that went on without it, does not return (H3).
func (f *fiber) enter(what string) error {
	fiber := onFiber()
	own := fiber && f.core.running.Load() == f
	switch {
	case own && f.phase.CompareAndSwap(running, calling):
	case fiber && f.phase.Load() == lost:
		runtime.Goexit()
	case own:
		return outsideStepError("%s was called within another call of this package", what)
	default:
		return outsideStepError("%s was called outside the goroutine that its Context belongs to: in a body, in a "+
			"goroutine of your own, or with the Context of another branch; branches begin with Group.Go", what)
	}
	if f.core.over() {
		f.leave() // the code's deferred calls come here too
		runtime.Goexit()
	}
	return nil
}

func (f *fiber) leave() { f.phase.CompareAndSwap(calling, running) }

// step is one call of the code: it gets its key, begins, and waits for its outcome.
func (f *fiber) step(what, name string, c *call, prepare func(*reentry) error) error {
	if err := f.enter(what); err != nil {
		return err
	}
	defer f.leave()
	if err := f.takeGiven(); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	if err := prepare(f.core); err != nil {
		return err
	}
	c.fiber = f
	if err := f.core.begin(c, f.prefix+name); err != nil {
		return err
	}
	f.call = c
	f.yield()
	return c.err
}

// nothing is a call that turns out to be no step; it is refused where a step would be.
func (f *fiber) nothing(what string) error {
	if err := f.enter(what); err != nil {
		return err
	}
	defer f.leave()
	return f.takeGiven()
}

// yield passes the baton to the core, and returns when it comes back. In a run that is over it unwinds instead.
func (f *fiber) yield() {
	f.phase.Store(resting)
	f.core.back <- struct{}{}
	<-f.resume
	if f.core.over() {
		runtime.Goexit()
	}
}

// giveUp makes the fiber and its branches return why, an ErrCancelled, from what they wait for, once. Their steps are
// abandoned.
func (f *fiber) giveUp(why error) {
	if f.done {
		return
	}
	f.unwinds = true
	f.ctx.stop(why)
	for _, child := range f.children {
		child.giveUp(why)
	}
	switch {
	case f.call != nil:
		f.core.abandon(f.call)
		f.call.err = why
		f.core.wake(f)
	case f.given == nil:
		f.given = why
	}
}

// takeGiven tells once why the fiber was given up while it did not wait for a call; nil if it was not.
func (f *fiber) takeGiven() error {
	why := f.given
	f.given = nil
	return why
}

// run gives a fiber the baton and waits until it is back; false if the fiber blocks on something that is no step.
func (f *fiber) run(stuckAfter time.Duration) (where string, back bool) {
	f.phase.Store(calling)
	f.core.running.Store(f)
	defer f.core.running.Store(nil)
	f.resume <- struct{}{}
	timer := f.core.timer(stuckAfter)
	defer timer.Stop()
	for before := ""; ; {
		select {
		case <-f.core.back:
			return "", true
		case <-timer.C:
		}
		// Seen twice at the same place it will not go on by itself: nothing else of the run moves meanwhile.
		where = blockedAt(f.id.Load())
		if where != "" && where == before && f.phase.CompareAndSwap(running, lost) {
			return where, false
		}
		before = where
		timer.Reset(stuckAfter / 4)
	}
}

// goroutineID is the number of the calling goroutine. The runtime tells it only in the text of a stack.
func goroutineID() uint64 {
	var text [32]byte
	fields := bytes.Fields(text[:runtime.Stack(text[:], false)])
	id, _ := strconv.ParseUint(string(fields[1]), 10, 64)
	return id
}

// blocked are the states of a goroutine that waits for another one, for I/O or for the time.
var blocked = []string{"chan ", "select", "semacquire", "sync.", "IO wait", "sleep", "syscall"}

// blockedAt is where a goroutine blocks, for example "chan receive at app.go:12"; empty if it does not.
func blockedAt(id uint64) string {
	text := make([]byte, 64*1024)
	for {
		n := runtime.Stack(text, true)
		if n < len(text) {
			text = text[:n]
			break
		}
		text = make([]byte, 2*len(text))
	}
	start := bytes.Index(text, fmt.Appendf(nil, "goroutine %d ", id))
	if start < 0 {
		return ""
	}
	stack, _, _ := strings.Cut(string(text[start:]), "\n\n")
	head, frames, _ := strings.Cut(stack, "\n")
	_, state, _ := strings.Cut(head, "[")
	state, _, _ = strings.Cut(state, "]")
	state, _, _ = strings.Cut(state, ",")
	for _, prefix := range blocked {
		if strings.HasPrefix(state, prefix) {
			return state + at(frames)
		}
	}
	return ""
}

// libraries are packages whose lines say nothing about who waits.
var libraries = []string{"runtime", "sync", "internal", "time", "os", "io", "net", "syscall", "context", "bufio", "crypto", "database"}

// at is the first line of a stack that is not a library's.
func at(frames string) string {
	lines := strings.Split(frames, "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		pack := lines[i][:strings.IndexAny(lines[i]+".", "./")]
		if ours(lines[i]) || slices.Contains(libraries, pack) {
			continue
		}
		line, _, _ := strings.Cut(strings.TrimSpace(lines[i+1]), " +0x")
		return " at " + baseName(line)
	}
	return ""
}
