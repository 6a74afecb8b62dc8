// The runs in a worker's memory: which, their hash for the heartbeat, and which are parked since when.

package stepwell

import (
	"container/list"
	"encoding/binary"
	"strconv"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// resident is a run in memory. The fields above the line are guarded by the host's lock; those below belong to the goroutine
// that works its inbox off.
type resident struct {
	runID string
	turn  uint32
	hash  uint64
	// assign is there while the assignment still arrives in parts.
	assign *stepwellv1.Assign
	// inbox is what the core is to be told, in order; working tells that a goroutine does so.
	inbox   []func()
	working bool
	// resend: all that is not acknowledged goes out again, on another stream, before anything new (H11).
	resend    bool
	parkedAt  *list.Element // its place among the parked, nil if it is not
	pending   bool          // something that its code has seen is not yet durable
	executing int           // bodies
	endNumber uint64
	trace     RunTrace // nil: nothing is traced
	ending    ending
	evicted   bool
	// ----
	core     *reentry
	attempts map[string]*attempt
}

// residents are all of them by run.
type residents struct {
	runs   map[string]*resident
	parked *list.List // in the order in which they parked
	hash   uint64
}

func newResidents() residents {
	return residents{runs: map[string]*resident{}, parked: list.New()}
}

func (r *residents) add(one *resident) {
	r.runs[one.runID] = one
	r.hash += one.hash
}

func (r *residents) remove(one *resident) {
	delete(r.runs, one.runID)
	r.hash -= one.hash
	r.setParked(one, false)
}

func (r *residents) setParked(one *resident, parked bool) {
	switch {
	case parked && one.parkedAt == nil:
		one.parkedAt = r.parked.PushBack(one)
	case !parked && one.parkedAt != nil:
		r.parked.Remove(one.parkedAt)
		one.parkedAt = nil
	}
}

// listing are the residents as Hello says them. One whose assignment still arrives is not: the rest of it is lost.
func (r *residents) listing() []*stepwellv1.Resident {
	var all []*stepwellv1.Resident
	for _, one := range r.runs {
		if one.assign == nil {
			all = append(all, &stepwellv1.Resident{RunId: one.runID, Turn: one.turn, Parked: one.parkedAt != nil})
		}
	}
	return all
}

// digest is what a heartbeat says: the residents as of a number of server frames.
type digest struct {
	residents  int
	hash       uint64
	framesRead uint64
}

// runHash is one run's part of the hash of residents; see Heartbeat.resident_hash.
func runHash(runID string, turn uint32) uint64 {
	return binary.BigEndian.Uint64(blake2(8, strconv.AppendUint([]byte(runID+":"), uint64(turn), 10)))
}
