// Packs what the code did into Commands frames, and a worker's Hello into Hello frames.

package stepwell

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const (
	frameItems     = 128
	frameBytes     = 64 * 1024
	decisionBytes  = 4 * 1024 * 1024
	helloResidents = 1000
	// registrationBytes bounds all functions of an app; what the first frame of Hello may hold in all is a little more.
	registrationBytes = 4_000_000
	// Capabilities: time-outs of functions, and their flow. A server without them would ignore them in silence.
	capTimeouts = "timeouts"
	capFlow     = "flow"
)

// entry of the way out: commands of one run that belong together (a decision), or a frame of the worker itself.
type entry struct {
	runID    string
	commands []command
	frame    *stepwellv1.ConnectRequest
}

// packer fills frames of at most 128 commands or 64 KiB, unless one decision alone is larger.
type packer struct {
	epoch  uint64
	frames []*stepwellv1.ConnectRequest
	body   *stepwellv1.Commands
	items  int
	size   int
	// What follows a Park of the same run must not share its frame: its lists do not tell which came first.
	parked map[string]bool
}

func pack(entries []entry, epoch uint64) []*stepwellv1.ConnectRequest {
	p := &packer{epoch: epoch}
	for _, one := range entries {
		if one.frame != nil {
			p.cut()
			p.frames = append(p.frames, one.frame)
			continue
		}
		p.decision(one)
	}
	p.cut()
	return p.frames
}

func (p *packer) decision(one entry) {
	weight := 0
	for _, c := range one.commands {
		weight += proto.Size(c) + 4
	}
	if weight > decisionBytes && len(one.commands) > 1 {
		// Larger than a message may be: it is committed in parts, in order.
		for _, part := range split(one.runID, one.commands) {
			p.decision(part)
		}
		return
	}
	if p.items+len(one.commands) > frameItems || p.size+weight > frameBytes || p.parked[one.runID] {
		p.cut()
	}
	if p.body == nil {
		p.body, p.parked = &stepwellv1.Commands{Epoch: p.epoch}, nil
	}
	for _, c := range one.commands {
		p.add(one.runID, c)
	}
	p.items += len(one.commands)
	p.size += weight
}

func (p *packer) add(runID string, c command) {
	switch c := c.(type) {
	case *stepwellv1.StepResult:
		p.body.Results = append(p.body.Results, c)
	case *stepwellv1.StepFailure:
		p.body.Failures = append(p.body.Failures, c)
	case *stepwellv1.Sleep:
		p.body.Sleeps = append(p.body.Sleeps, c)
	case *stepwellv1.WaitForEvent:
		p.body.Waits = append(p.body.Waits, c)
	case *stepwellv1.Invoke:
		p.body.Invokes = append(p.body.Invokes, c)
	case *stepwellv1.SendEvents:
		p.body.Sends = append(p.body.Sends, c)
	case *stepwellv1.Delivered:
		p.body.Delivered = append(p.body.Delivered, c)
	case *stepwellv1.Abandon:
		p.body.Abandons = append(p.body.Abandons, c)
	case *stepwellv1.Park:
		p.body.Parks = append(p.body.Parks, c)
		put(&p.parked, runID, true)
	case *stepwellv1.Release:
		p.body.Releases = append(p.body.Releases, c)
	case *stepwellv1.Mismatch:
		p.body.Mismatches = append(p.body.Mismatches, c)
	case *stepwellv1.Complete:
		p.body.Completes = append(p.body.Completes, c)
	case *stepwellv1.Fail:
		p.body.Fails = append(p.body.Fails, c)
	case *stepwellv1.Cancelled:
		p.body.Cancelled = append(p.body.Cancelled, c)
	}
}

func (p *packer) cut() {
	if p.body != nil {
		p.frames = append(p.frames, &stepwellv1.ConnectRequest{Frame: &stepwellv1.ConnectRequest_Commands{Commands: p.body}})
	}
	p.body, p.parked, p.items, p.size = nil, nil, 0, 0
}

// split makes decisions of at most 64 KiB out of commands of one run, in order: what is sent again was once many.
func split(runID string, commands []command) []entry {
	var parts []entry
	size := 0
	for _, c := range commands {
		weight := proto.Size(c)
		if len(parts) == 0 || size+weight > frameBytes {
			parts = append(parts, entry{runID: runID})
			size = 0
		}
		last := &parts[len(parts)-1]
		last.commands = append(last.commands, c)
		size += weight
	}
	return parts
}

// lacking is what a server would have to have and has not, and the first function that needs it; empty if all is there.
func lacking(functions []*stepwellv1.FunctionSpec, capabilities []string) string {
	needs := []struct {
		capability string
		of         func(*stepwellv1.FunctionSpec) bool
	}{
		{capTimeouts, func(one *stepwellv1.FunctionSpec) bool { return one.GetTimeoutMs() > 0 || one.GetStartTimeoutMs() > 0 }},
		{capFlow, func(one *stepwellv1.FunctionSpec) bool { return one.GetFlow() != nil }},
	}
	for _, need := range needs {
		if at := slices.IndexFunc(functions, need.of); at >= 0 && !slices.Contains(capabilities, need.capability) {
			return fmt.Sprintf("%s of functions, which %s has", need.capability, functions[at].GetName())
		}
	}
	return ""
}

// hello are the frames that open a stream; only the last says that no other follows.
func hello(first *stepwellv1.Hello, residents []*stepwellv1.Resident) []*stepwellv1.ConnectRequest {
	var frames []*stepwellv1.ConnectRequest
	for next := proto.CloneOf(first); next != nil; {
		n := min(len(residents), helloResidents)
		next.Residents, residents = residents[:n], residents[n:]
		next.More = len(residents) > 0
		frames = append(frames, &stepwellv1.ConnectRequest{Frame: &stepwellv1.ConnectRequest_Hello{Hello: next}})
		next = nil
		if len(residents) > 0 {
			next = &stepwellv1.Hello{}
		}
	}
	return frames
}
