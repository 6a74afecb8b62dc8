// Branches of a function's code: groups that wait for all, races that wait for the first, and durable time-outs.

package stepwell

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Group runs branches of a function's code at the same time. They take turns: a branch runs until it waits for a step,
// then another goes on. So branches need no lock for what they share, and their order is the same in replay. A branch that
// waits for another by other means than a Group, such as a channel or a mutex, fails the run.
type Group struct {
	owner    *fiber
	branches []*fiber
	left     int
	winner   int // index of the branch that ended first; -1 before
	race     bool
	err      error
	misused  atomic.Pointer[Error]
}

// NewGroup makes a group without branches. It belongs to the goroutine of its Context.
func NewGroup(ctx Context) *Group { return &Group{owner: ctx.fiber(), winner: -1} }

// Go begins a branch, which runs at once until it first waits. The keys of its steps begin with the name and "/"; with an
// empty name they do not, and repeats get :2, :3 in the order of the calls. Steps in it take the Context it is given.
//
// When a branch returns an error the others are given up: what they wait for returns ErrCancelled.
func (g *Group) Go(name string, branch func(ctx Context) error) {
	f := g.owner
	if err := f.enter("Group.Go"); err != nil {
		g.misused.CompareAndSwap(nil, err.(*Error))
		return
	}
	defer f.leave()
	prefix := f.prefix
	if name != "" {
		if err := checkName(name); err != nil {
			g.fail(err)
			return
		}
		prefix += name + "/"
	}
	b := newFiber(f.core, f, prefix, branch)
	b.group = g
	g.branches = append(g.branches, b)
	g.left++
	if g.err != nil {
		b.giveUp(ErrCancelled)
	}
	f.core.ready = slices.Insert(f.core.ready, 0, b, f)
	f.yield()
}

// Wait returns when all branches have ended, with the error of the one that failed first.
func (g *Group) Wait() error {
	f := g.owner
	if err := f.enter("Group.Wait"); err != nil {
		return err
	}
	defer f.leave()
	g.waitAll()
	if misuse := g.misused.Load(); misuse != nil && g.err == nil {
		return misuse
	}
	if why := f.takeGiven(); why != nil && g.err == nil {
		return why
	}
	return g.err
}

func (g *Group) waitAll() {
	f := g.owner
	for g.left > 0 {
		f.awaits = g
		f.yield()
	}
	f.children = slices.DeleteFunc(f.children, func(child *fiber) bool { return child.done })
}

// ended notes the end of a branch. The branch still has the baton.
func (g *Group) ended(b *fiber) {
	g.left--
	if g.owner.core.over() {
		return
	}
	if g.winner < 0 {
		g.winner = slices.Index(g.branches, b)
	}
	if b.err != nil && !g.race {
		g.fail(b.err)
	}
	if g.owner.awaits == g && (g.left == 0 || g.race) {
		g.owner.core.wake(g.owner)
	}
}

func (g *Group) fail(err error) {
	if g.err == nil {
		g.err = err
		g.giveUp()
	}
}

// giveUp gives up the branches that were not, with their run or by a group around: their clean-up goes on.
func (g *Group) giveUp() {
	for _, b := range g.branches {
		if !b.unwinds {
			b.giveUp(ErrCancelled)
		}
	}
}

// Race runs branches at the same time and returns what the first one to end returned, with its index. The others are given
// up: what they wait for returns ErrCancelled, and Race returns when they too have ended. The keys of their steps are those
// of the surrounding code.
func Race[T any](ctx Context, branches ...func(ctx Context) (T, error)) (winner int, value T, err error) {
	if len(branches) == 0 {
		return -1, value, usageError("Race needs at least one branch")
	}
	values := make([]T, len(branches))
	g := NewGroup(ctx)
	g.race = true
	for i, branch := range branches {
		if g.winner >= 0 || g.misused.Load() != nil {
			break
		}
		g.Go("", func(ctx Context) (err error) {
			values[i], err = branch(ctx)
			return err
		})
	}
	if err := g.waitFirst(); err != nil {
		return -1, value, err
	}
	return g.winner, values[g.winner], g.branches[g.winner].err
}

// waitFirst returns when one branch has ended and the others are given up and have ended too.
func (g *Group) waitFirst() error {
	f := g.owner
	if err := f.enter("Race"); err != nil {
		return err
	}
	defer f.leave()
	for g.winner < 0 {
		f.awaits = g
		f.yield()
	}
	g.race, g.err = false, ErrCancelled // what the losers return does not matter
	g.giveUp()
	g.waitAll()
	return f.takeGiven()
}

// Within runs code under a durable time-out: when it is over, what the code waits for is given up, and the error is an
// ErrTimeout. The time-out is a sleep with the key "timeout", or the one that Name gives.
func Within[T any](ctx Context, timeout time.Duration, code func(ctx Context) (T, error), opts ...SleepOption) (T, error) {
	opts = append([]SleepOption{Name("timeout")}, opts...)
	winner, value, err := Race(ctx, code, func(ctx Context) (none T, err error) {
		return none, Sleep(ctx, timeout, opts...)
	})
	if winner == 1 && err == nil {
		return value, timeoutError("", fmt.Sprintf("it took longer than %s", timeout))
	}
	return value, err
}
