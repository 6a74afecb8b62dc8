// Commands of one run: what goes out now, what travels with the next command, what is not yet acknowledged.

package stepwell

import (
	"slices"

	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// command is a message of step.proto; its type decides the list of the frame that it goes to.
type command interface {
	proto.Message
	GetRunId() string
	GetTurn() uint32
}

// sent is a command with the number whose acknowledgement covers it.
type sent struct {
	coveredBy uint64
	command   command
}

// outbox of a run. Everything emitted within one call of the core leaves in one frame, and so is committed together.
type outbox struct {
	runID    string
	turn     uint32
	commands []command
	// Numbers of outcomes seen while nothing else was open: they travel with the next command (H1a).
	deferred []*stepwellv1.DeliveredKey
	// Not acknowledged, oldest first.
	sent []sent
	// What this call of the core emitted, and whether that holds a number.
	fresh    []command
	numbered bool
}

// emit adds a command; numbers that waited for one go first.
func (o *outbox) emit(c command) {
	if len(o.deferred) > 0 {
		o.flush()
	}
	o.add(c)
}

// flush reports the outcomes that the code has seen.
func (o *outbox) flush() {
	keys := o.deferred
	o.deferred = nil
	o.add(&stepwellv1.Delivered{RunId: o.runID, Turn: o.turn, Keys: keys})
}

func (o *outbox) add(c command) {
	o.commands = append(o.commands, c)
	o.fresh = append(o.fresh, c)
	o.numbered = o.numbered || isNumbered(c)
}

// withdraw takes back what was emitted within this call of the core; false if it is too late.
func (o *outbox) withdraw(c command) bool {
	at := slices.Index(o.fresh, c)
	if at < 0 {
		return false
	}
	o.fresh = slices.Delete(o.fresh, at, at+1)
	o.commands = slices.DeleteFunc(o.commands, func(one command) bool { return one == c })
	return true
}

// withdrawBeginnings takes back, before a mismatch, what this call of the core began.
func (o *outbox) withdrawBeginnings() {
	for _, c := range slices.Clone(o.fresh) {
		switch c.(type) {
		case *stepwellv1.Sleep, *stepwellv1.WaitForEvent, *stepwellv1.Invoke, *stepwellv1.SendEvents:
			o.withdraw(c)
		}
	}
}

// closeCall notes which acknowledgement will cover what this call of the core emitted. A frame that holds a number is
// durable with it; one without is known to be durable when a later number is, as a run's frames are applied in order.
func (o *outbox) closeCall(lastNumber uint64) {
	coveredBy := lastNumber + 1
	if o.numbered {
		coveredBy = lastNumber
	}
	for _, c := range o.fresh {
		o.sent = append(o.sent, sent{coveredBy, c})
	}
	o.fresh, o.numbered = o.fresh[:0], false
}

// acknowledge forgets what is durable.
func (o *outbox) acknowledge(number uint64) {
	o.sent = slices.DeleteFunc(o.sent, func(one sent) bool { return one.coveredBy <= number })
}

// resolved notes that an outcome for the key came: the server must have taken the command that began or failed it.
func (o *outbox) resolved(key string) {
	o.sent = slices.DeleteFunc(o.sent, func(one sent) bool {
		keyed, ok := one.command.(interface{ GetKey() string })
		return ok && keyed.GetKey() == key && !isNumbered(one.command)
	})
}

// unacknowledged are the commands to send again, in order. A park that the code has left since is not among them.
func (o *outbox) unacknowledged(parked bool) []command {
	var commands []command
	for at, one := range o.sent {
		if _, park := one.command.(*stepwellv1.Park); park && (!parked || at < len(o.sent)-1) {
			continue
		}
		commands = append(commands, one.command)
	}
	return commands
}

// pending tells whether something the code has seen is not yet durable.
func (o *outbox) pending() bool {
	return slices.ContainsFunc(o.sent, func(one sent) bool { return isNumbered(one.command) })
}

// clear is for a run that is no longer this worker's: nothing of it is sent any more.
func (o *outbox) clear() { *o = outbox{runID: o.runID, turn: o.turn} }

func isNumbered(c command) bool {
	switch c.(type) {
	case *stepwellv1.StepResult, *stepwellv1.Delivered, *stepwellv1.Complete, *stepwellv1.Fail, *stepwellv1.Cancelled:
		return true
	}
	return false
}
