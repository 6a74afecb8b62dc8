// What is known of a run's keys before its code asks: recorded outcomes, undelivered ones, keys open at the server.

package stepwell

import (
	"bytes"
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const (
	runKey    = "$run"
	cancelKey = "$cancel"
	timerKey  = "$timer"
)

const (
	kindRun    = stepwellv1.StepKind_STEP_KIND_RUN
	kindSleep  = stepwellv1.StepKind_STEP_KIND_SLEEP
	kindEvent  = stepwellv1.StepKind_STEP_KIND_EVENT
	kindInvoke = stepwellv1.StepKind_STEP_KIND_INVOKE
	kindSend   = stepwellv1.StepKind_STEP_KIND_SEND
	kindRetry  = stepwellv1.StepKind_STEP_KIND_RETRY
)

// retried is a body that was tried before: the attempt that may begin, and why.
type retried struct {
	attempt uint32
	failure *stepwellv1.Failure
}

// journal of an assigned run, and what came since for keys that the code has not asked for.
type journal struct {
	// What the code has seen, in that order, and what it has not seen although it was there at the assignment.
	outcomes []*stepwellv1.Outcome
	pending  []*stepwellv1.Outcome
	recorded map[string]*stepwellv1.Outcome
	// Recorded outcomes whose turn came while the code did not ask for them.
	skipped map[string]bool
	// Outcomes that came in this turn for keys the code has not asked for yet.
	inbox    map[string]*stepwellv1.Outcome
	open     map[string]*stepwellv1.OpenKey
	attempts map[string]retried
	// Which attempt of the function this is.
	functionAttempt uint32
}

func newJournal(assign *stepwellv1.Assign) *journal {
	j := &journal{functionAttempt: 1}
	for _, outcome := range assign.GetJournal() {
		if outcome.GetNumber() == 0 {
			j.pending = append(j.pending, outcome)
			continue
		}
		j.outcomes = append(j.outcomes, outcome)
		if outcome.GetKind() != kindRetry {
			put(&j.recorded, outcome.GetKey(), outcome)
		}
	}
	slices.SortStableFunc(j.outcomes, func(a, b *stepwellv1.Outcome) int { return cmp.Compare(a.GetNumber(), b.GetNumber()) })
	for _, key := range assign.GetOpen() {
		put(&j.open, baseKey(key.GetKey(), key.GetKind()), key) // a back-off is found under the key of its step
	}
	j.noteFunctionAttempt(assign.GetJournal()...)
	return j
}

// takePending takes out what the code had not seen when the run was assigned. Its keys count as begun.
func (j *journal) takePending() []*stepwellv1.Outcome {
	pending := j.pending
	j.pending = nil
	for _, outcome := range pending {
		key := outcome.GetKey()
		if strings.HasPrefix(key, "$") && !strings.HasPrefix(key, timerKey) {
			continue
		}
		base := baseKey(key, outcome.GetKind())
		if j.open[base] == nil {
			put(&j.open, base, &stepwellv1.OpenKey{Key: key, Kind: outcome.GetKind(), Target: outcome.GetTarget(), InputHash: outcome.GetInputHash()})
		}
	}
	return pending
}

// noteFunctionAttempt finds which attempt of the function these outcomes allow.
func (j *journal) noteFunctionAttempt(outcomes ...*stepwellv1.Outcome) {
	for _, outcome := range outcomes {
		if base, attempt := splitAttempt(outcome.GetKey()); base == runKey && outcome.GetKind() == kindRetry {
			j.functionAttempt = max(j.functionAttempt, attempt)
		}
	}
}

// hasOutcome tells whether the outcome of a key is here, its turn passed or still to come.
func (j *journal) hasOutcome(key string) bool {
	return j.recorded[key] != nil || j.inbox[key] != nil
}

// isDue tells whether the outcome's turn has passed, so that it is delivered as soon as the code asks.
func (j *journal) isDue(key string) bool {
	return j.skipped[key] || j.inbox[key] != nil
}

// take takes out the outcome whose turn had passed.
func (j *journal) take(key string) *stepwellv1.Outcome {
	from := j.inbox
	if j.skipped[key] {
		delete(j.skipped, key)
		from = j.recorded
	}
	outcome := from[key]
	delete(from, key)
	return outcome
}

// known is what recorded, undelivered and open keys have in common.
type known interface {
	GetKind() stepwellv1.StepKind
	GetTarget() string
	GetInputHash() []byte
}

// difference is what is known of a key and what the code asks for, in words, if they differ (H15).
func (j *journal) difference(c *call) (recorded, attempted string, differ bool) {
	var have known
	if outcome := j.recorded[c.key]; outcome != nil {
		have = outcome
	} else if outcome := j.inbox[c.key]; outcome != nil {
		have = outcome
	} else if open := j.open[c.key]; open != nil {
		have = open
	} else {
		if _, tried := j.attempts[c.key]; tried && c.kind != kindRun {
			return words(kindRun, ""), words(c.kind, c.target), true
		}
		return "", "", false
	}
	kind, target := have.GetKind(), have.GetTarget()
	if kind == kindRetry {
		kind, target = kindRun, ""
	}
	otherTarget := (c.kind == kindEvent || c.kind == kindInvoke) && target != c.target
	otherInput := len(c.hash) > 0 && len(have.GetInputHash()) > 0 && !bytes.Equal(c.hash, have.GetInputHash())
	if kind == c.kind && !otherTarget && !otherInput {
		return "", "", false
	}
	attempted = words(c.kind, c.target)
	if kind == c.kind && !otherTarget && otherInput {
		attempted += " with another input"
	}
	return words(kind, target), attempted, true
}

// splitAttempt makes ("charge", 2) of "charge#2", and attempt 0 of a plain key.
func splitAttempt(key string) (base string, attempt uint32) {
	at := strings.LastIndexByte(key, '#')
	if at < 0 {
		return key, 0
	}
	number, err := strconv.ParseUint(key[at+1:], 10, 32)
	if err != nil {
		return key, 0
	}
	return key[:at], uint32(number)
}

func baseKey(key string, kind stepwellv1.StepKind) string {
	if kind == kindRetry {
		key, _ = splitAttempt(key)
	}
	return key
}

// words are kind and target for people: the same in every SDK.
func words(kind stepwellv1.StepKind, target string) string {
	var word string
	switch kind {
	case kindRun, kindRetry:
		word = "run"
	case kindSleep:
		word = "sleep"
	case kindEvent:
		word = "wait for event"
	case kindInvoke:
		word = "invoke"
	case kindSend:
		word = "send"
	default:
		word = fmt.Sprintf("kind %d", kind)
	}
	if target != "" {
		word += " " + target
	}
	return word
}

// location is the line of the user's code that is executing, for example "app.go:12".
func location() string {
	var callers [64]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers[:])])
	for {
		frame, more := frames.Next()
		if !ours(frame.Function) {
			return fmt.Sprintf("%s:%d", baseName(frame.File), frame.Line)
		}
		if !more {
			return ""
		}
	}
}

// ours tells whether a function is this package's.
func ours(function string) bool { return strings.HasPrefix(function, packagePath) }

var packagePath = typeOf(&Error{}).PkgPath() + "."

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func retryKey(key string, attempt uint32) string {
	return key + "#" + strconv.FormatUint(uint64(attempt), 10)
}
