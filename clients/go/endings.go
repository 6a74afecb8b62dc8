// What a run ends with.

package stepwell

import stepwellv1 "stepwell.example/stepwell/v1"

// end is for code that has ended; once cancel was delivered to it, it is cancelled, however it ended.
func (r *reentry) end() {
	err := r.main.err
	var data []byte
	if err == nil && !r.cancelled {
		what := "the output of " + r.fn.id
		data, err = encode(r.output, what)
		if most := r.limits.GetResultBytes(); err == nil && most > 0 && len(data) > int(most) {
			err = limitError("%s has %d bytes; result_bytes is %d", what, len(data), most)
		}
	}
	if err != nil || r.cancelled {
		r.endWith(err)
	} else {
		r.number++
		r.emitEnd(&stepwellv1.Complete{RunId: r.runID, Turn: r.turn, Number: r.number, Output: &stepwellv1.Payload{Data: data}})
	}
	r.letGo()
}

// endWith ends the run with an error, or as cancelled if that was asked for.
func (r *reentry) endWith(err error) {
	r.number++
	if r.cancelled {
		r.emitEnd(&stepwellv1.Cancelled{RunId: r.runID, Turn: r.turn, Number: r.number})
		return
	}
	failure := toFailure(err, r.limits.GetFailureBytes())
	if isStepError(err) {
		failure.NonRetriable = true // its attempts are spent
	}
	r.emitEnd(&stepwellv1.Fail{
		RunId: r.runID, Turn: r.turn, Number: r.number, Failure: failure, Attempt: r.journal.functionAttempt,
		RetryAfterMs: retryAfterMs(err),
	})
}

func (r *reentry) emitEnd(c command) {
	r.endNumber = r.number
	if r.trace != nil {
		r.ending = r.endingOf(c)
	}
	r.outbox.emit(c)
	r.state = stateEnded
}
