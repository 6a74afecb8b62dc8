// Every transcript of tests/conformance, played against the core.

package stepwell_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	sw "stepwell.example/stepwell"
	stepwellv1 "stepwell.example/stepwell/v1"
)

// patience is short here: a goroutine that blocks at the same place twice is blocked, however slow the machine.
const patience = 40 * time.Millisecond

type transcript struct {
	Name    string
	Program string
	Only    []string
	Assign  assignment
	Limits  raw
	Steps   []map[string]raw
}

type assignment struct {
	Event         started
	Events        []started
	Journal       []outcome
	Open          []struct{ Key, Kind, Target string }
	Cancelled     bool
	CancelFailure *failed `json:"cancel_failure"`
}

type started struct {
	ID   string
	Name string
	Data raw
}

type outcome struct {
	Key, Kind, Target string
	Number            uint64
	Attempt           *uint32
	TimeMs            int64  `json:"time_ms"`
	InputHash         string `json:"input_hash"`
	Output            raw
	Failure           *failed
}

type failed struct{ Type, Message, Reason string }

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("../../tests/conformance/transcripts/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts (%v): this test needs the whole checkout", err)
	}
	played := 0
	for _, file := range files {
		for _, one := range transcripts(t, file) {
			if len(one.Only) > 0 && !slices.Contains(one.Only, "go") {
				continue
			}
			played++
			t.Run(strings.TrimSuffix(filepath.Base(file), ".json")+": "+one.Name, func(t *testing.T) { play(t, one) })
		}
	}
	if played < 70 {
		t.Errorf("only %d transcripts apply to Go", played)
	}
}

func transcripts(t *testing.T, file string) (all []transcript) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return all
}

func play(t *testing.T, one transcript) {
	function := byName[one.Program]
	if function == nil {
		t.Fatalf("no program %q", one.Program)
	}
	limits := &stepwellv1.Limits{}
	if one.Limits != nil {
		if err := protojson.Unmarshal(one.Limits, limits); err != nil {
			t.Fatal(err)
		}
	}
	core := sw.NewCore(function, one.Assign.message(), limits, patience)
	defer core.Evict()
	for i, step := range one.Steps {
		again := apply(t, core, step)
		seen := seen(core, again)
		if want := generic(t, step["then"]); !reflect.DeepEqual(generic(t, text(seen)), want) {
			t.Fatalf("step %d %s:\nsaw  %s\nwant %s", i, text(step), text(seen), text(want))
		}
	}
}

// apply gives the core one input; for a reconnect it answers what must be sent again.
func apply(t *testing.T, core *sw.Core, step map[string]raw) []proto.Message {
	t.Helper()
	for kind, spec := range step {
		switch kind {
		case "then":
		case "start":
			core.Start()
		case "resolve":
			core.Resolve(read[outcome](t, spec).message())
		case "finish":
			finish(t, core, spec)
		case "ack":
			core.Ack(read[uint64](t, spec))
		case "cancel":
			core.Cancel(read[struct{ Failure *failed }](t, spec).Failure.message())
		case "evict":
			core.Evict()
		case "reconnect":
			return core.Unacknowledged()
		default:
			t.Fatalf("no input %q", kind)
		}
	}
	return core.Commands()
}

func finish(t *testing.T, core *sw.Core, text raw) {
	t.Helper()
	spec := read[struct {
		Key       string
		Attempt   *uint32
		Value     raw
		Special   string
		TextBytes *int `json:"text_bytes"`
		Error     *struct {
			Type, Message string
			AfterMs       int64 `json:"after_ms"`
		}
		StartedMs int64 `json:"started_ms"`
		EndedMs   int64 `json:"ended_ms"`
	}](t, text)
	var value any = spec.Value
	var err error
	switch {
	case spec.Error != nil:
		said := errors.New(spec.Error.Message)
		switch spec.Error.Type {
		case "ValueError":
			err = &ValueError{spec.Error.Message}
		case "RetryAfterError":
			err = sw.RetryAfter(time.Duration(spec.Error.AfterMs)*time.Millisecond, said)
		case "NonRetriableError":
			err = sw.NonRetriable(said)
		case "StepTimeoutError":
			err = sw.StepTimeout(spec.Error.Message)
		default:
			t.Fatalf("no error %q", spec.Error.Type)
		}
	case spec.TextBytes != nil:
		value = strings.Repeat("x", *spec.TextBytes)
	case spec.Special != "":
		value = map[string]any{
			"pair": [2]int{1, 2}, "no JSON": func() {}, "not a number": math.NaN(), "big": new(big.Int).Lsh(big.NewInt(1), 70),
		}[spec.Special]
	case spec.Value == nil:
		value = nil
	}
	core.Finish(spec.Key, orOne(spec.Attempt), value, err, spec.StartedMs, spec.EndedMs)
}

func orOne(attempt *uint32) uint32 {
	if attempt == nil {
		return 1
	}
	return *attempt
}

func (o outcome) message() *stepwellv1.Outcome {
	hash, err := hex.DecodeString(o.InputHash)
	if err != nil {
		panic(err)
	}
	kind := o.Kind
	if kind == "" {
		kind = "RUN"
	}
	message := &stepwellv1.Outcome{
		RunId: "run_1", Turn: 1, Key: o.Key, Number: o.Number, Target: o.Target, Kind: kindOf(kind), Attempt: orOne(o.Attempt),
		TimeMs: o.TimeMs, InputHash: hash, Result: &stepwellv1.Outcome_Output{Output: &stepwellv1.Payload{Data: o.Output}},
	}
	if o.Failure != nil {
		message.Result = &stepwellv1.Outcome_Failure{Failure: o.Failure.message()}
	}
	return message
}

func (f *failed) message() *stepwellv1.Failure {
	if f == nil {
		return nil
	}
	return &stepwellv1.Failure{Type: f.Type, Message: f.Message, Reason: f.Reason}
}

func (s started) message() *stepwellv1.Event {
	event := &stepwellv1.Event{Id: "evt_1", Name: "test/start", TimeMs: 1000, Data: &stepwellv1.Payload{Data: []byte("{}")}}
	if s.ID != "" {
		event.Id = s.ID
	}
	if s.Name != "" {
		event.Name = s.Name
	}
	if s.Data != nil {
		event.Data.Data = s.Data
	}
	if string(s.Data) == "null" {
		event.Data = nil
	}
	return event
}

func (a assignment) message() *stepwellv1.Assign {
	message := &stepwellv1.Assign{
		RunId: "run_1", Turn: 1, FunctionId: "test/program", CreatedMs: 1000, Cancelled: a.Cancelled, Event: a.Event.message(),
		CancelFailure: a.CancelFailure.message(),
	}
	for _, one := range a.Events {
		message.Events = append(message.Events, one.message())
	}
	if len(message.Events) > 0 {
		message.Event = message.Events[0]
	}
	for _, one := range a.Journal {
		message.Journal = append(message.Journal, one.message())
	}
	for _, open := range a.Open {
		message.Open = append(message.Open, &stepwellv1.OpenKey{Key: open.Key, Kind: kindOf(open.Kind), Target: open.Target})
	}
	return message
}

func kindOf(name string) stepwellv1.StepKind {
	kind, ok := stepwellv1.StepKind_value["STEP_KIND_"+name]
	if !ok {
		panic("no kind " + name)
	}
	return stepwellv1.StepKind(kind)
}

var order = []string{
	"result", "failure", "sleep", "wait", "invoke", "send", "delivered", "abandon", "park", "mismatch", "complete", "fail",
	"cancelled",
}

// seen is what the core did, in the words of the transcripts.
func seen(core *sw.Core, commands []proto.Message) fields {
	seen := fields{"state": core.State()}
	var list [][2]any
	for _, message := range commands {
		kind, told := words(message)
		list = append(list, [2]any{kind, told})
	}
	slices.SortStableFunc(list, func(a, b [2]any) int {
		return slices.Index(order, a[0].(string)) - slices.Index(order, b[0].(string))
	})
	var all []any
	for _, one := range list {
		all = append(all, fields{one[0].(string): one[1]})
	}
	if all != nil {
		seen["commands"] = all
	}
	var bodies []any
	for _, body := range core.Bodies() {
		told := fields{"key": body.Key, "attempt": body.Attempt}
		if len(body.Args) > 0 {
			told["args"] = body.Args
		}
		if body.LastError != nil {
			told["last_error"] = body.LastError.Type
		}
		bodies = append(bodies, told)
	}
	if bodies != nil {
		seen["bodies"] = bodies
	}
	if interrupts := core.Interrupts(); interrupts != nil {
		seen["interrupts"] = interrupts
	}
	return seen
}

func words(message proto.Message) (kind string, told any) {
	switch m := message.(type) {
	case *stepwellv1.StepResult:
		told := fields{"key": m.Key, "number": m.Number, "attempt": m.Attempt, "output": raw(m.Output.Data)}
		return "result", hashed(told, m.InputHash)
	case *stepwellv1.StepFailure:
		told := fields{"key": m.Key, "attempt": m.Attempt, "max_attempts": m.Retry.MaxAttempts, "failure": failure(m.Failure)}
		return "failure", hashed(after(told, m.RetryAfterMs), m.InputHash)
	case *stepwellv1.Sleep:
		if until, ok := m.Until.(*stepwellv1.Sleep_UntilMs); ok {
			return "sleep", fields{"key": m.Key, "until_ms": until.UntilMs}
		}
		return "sleep", fields{"key": m.Key, "duration_ms": m.GetDurationMs()}
	case *stepwellv1.WaitForEvent:
		told := fields{"key": m.Key, "event": m.Event, "timeout_ms": m.TimeoutMs}
		if m.MatchPath != "" {
			told["match_path"], told["match_value"] = m.MatchPath, raw(m.MatchValue)
		}
		if m.Condition != "" {
			told["condition"] = m.Condition
		}
		return "wait", told
	case *stepwellv1.Invoke:
		told := fields{"key": m.Key, "function_id": m.FunctionId, "input": raw(m.Input.Data)}
		if m.TimeoutMs > 0 {
			told["timeout_ms"] = m.TimeoutMs
		}
		if m.Detached {
			told["detached"] = true
		}
		return "invoke", hashed(told, m.InputHash)
	case *stepwellv1.SendEvents:
		var events []any
		for _, event := range m.Events {
			events = append(events, []any{event.Name, raw(event.GetData().GetData())})
		}
		return "send", hashed(fields{"key": m.Key, "events": events}, m.InputHash)
	}
	return moreWords(message)
}

func moreWords(message proto.Message) (kind string, told any) {
	switch m := message.(type) {
	case *stepwellv1.Delivered:
		var keys []any
		for _, key := range m.Keys {
			keys = append(keys, []any{key.Key, key.Number})
		}
		return "delivered", keys
	case *stepwellv1.Abandon:
		return "abandon", m.Key
	case *stepwellv1.Park:
		if m.Tree.Combine != stepwellv1.AwaitTree_COMBINE_ANY {
			panic("a park is for any of its keys")
		}
		return "park", fields{"any": m.Tree.Keys, "received": m.Received}
	case *stepwellv1.Mismatch:
		if !strings.HasPrefix(m.Location, "programs_test.go:") {
			panic(fmt.Sprintf("a mismatch names the line of the program, not %q", m.Location))
		}
		return "mismatch", fields{"key": m.Key, "recorded": m.Recorded, "attempted": m.Attempted}
	case *stepwellv1.Complete:
		return "complete", fields{"number": m.Number, "output": raw(m.Output.Data)}
	case *stepwellv1.Fail:
		return "fail", after(fields{"number": m.Number, "attempt": m.Attempt, "failure": failure(m.Failure)}, m.RetryAfterMs)
	case *stepwellv1.Cancelled:
		return "cancelled", fields{"number": m.Number}
	}
	panic(fmt.Sprintf("no words for %T", message))
}

func after(told fields, retryAfterMs *uint64) fields {
	if retryAfterMs != nil {
		told["retry_after_ms"] = *retryAfterMs
	}
	return told
}

func hashed(told fields, inputHash []byte) fields {
	if len(inputHash) > 0 {
		told["input_hash"] = hex.EncodeToString(inputHash)
	}
	return told
}

func failure(f *stepwellv1.Failure) fields {
	told := fields{"type": f.Type}
	if f.Reason != "" {
		told["reason"] = f.Reason
	}
	if f.NonRetriable {
		told["non_retriable"] = true
	}
	if f.Cause != nil && f.Type != "SerializationError" {
		told["cause"] = f.Cause.Type
	}
	return told
}

func read[T any](t *testing.T, text raw) (value T) {
	t.Helper()
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return value
}

func text(value any) raw {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return data
}

// generic is JSON as plain values, with numbers as they are written.
func generic(t *testing.T, text raw) (value any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return value
}
