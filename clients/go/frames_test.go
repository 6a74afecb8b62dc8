// The parts of the worker and the codec that tests look at from inside.

package stepwell

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

func resultCommand(runID string, bytes int) command {
	return &stepwellv1.StepResult{RunId: runID, Turn: 1, Key: "a", Output: &stepwellv1.Payload{Data: make([]byte, bytes)}}
}

func shapes(frames []*stepwellv1.ConnectRequest) (counts []int) {
	for _, frame := range frames {
		body := frame.GetCommands()
		counts = append(counts, len(body.GetResults())+len(body.GetParks())+len(body.GetSleeps()))
	}
	return counts
}

func TestPack(t *testing.T) {
	one := func(runID string, bytes int) entry {
		return entry{runID: runID, commands: []command{resultCommand(runID, bytes)}}
	}
	var many []entry
	for n := range 300 {
		many = append(many, one(fmt.Sprint("run_", n), 1))
	}
	large := entry{runID: "r", commands: []command{resultCommand("r", 40_000), resultCommand("r", 40_000)}}
	huge := entry{runID: "r", commands: []command{resultCommand("r", 3<<20), resultCommand("r", 3<<20)}}
	park := entry{runID: "r", commands: []command{&stepwellv1.Park{RunId: "r"}}}
	goodbye := entry{frame: &stepwellv1.ConnectRequest{Frame: &stepwellv1.ConnectRequest_Goodbye{}}}
	cases := map[string]struct {
		entries []entry
		want    []int
	}{
		"nothing makes no frame":                       {nil, nil},
		"many decisions share frames of 128":           {many, []int{128, 128, 44}},
		"a large result travels alone":                 {[]entry{one("a", 1), one("b", 100_000), one("c", 1)}, []int{1, 1, 1}},
		"a decision is never split":                    {[]entry{large, one("s", 1)}, []int{2, 1}},
		"unless it is larger than a message may be":    {[]entry{huge}, []int{1, 1}},
		"what follows a park of its run has another":   {[]entry{park, one("r", 1)}, []int{1, 1}},
		"what follows a park of another run shares it": {[]entry{park, one("s", 1)}, []int{2}},
		"a frame of the worker keeps its place":        {[]entry{one("a", 1), goodbye, one("b", 1)}, []int{1, 0, 1}},
	}
	for name, one := range cases {
		t.Run(name, func(t *testing.T) {
			frames := pack(one.entries, 5)
			if got := shapes(frames); !slices.Equal(got, one.want) {
				t.Fatal(got)
			}
			for _, frame := range frames {
				if body := frame.GetCommands(); body != nil && body.Epoch != 5 {
					t.Fatal(body)
				}
			}
		})
	}
}

func TestAHelloWithManyResidentsSpansFramesAndOnlyTheLastEndsIt(t *testing.T) {
	residents := make([]*stepwellv1.Resident, 2500)
	frames := hello(&stepwellv1.Hello{App: "a"}, residents)
	var sizes []int
	for at, frame := range frames {
		one := frame.GetHello()
		sizes = append(sizes, len(one.Residents))
		if one.More != (at < 2) || (one.App == "a") != (at == 0) {
			t.Fatal(one)
		}
	}
	if !slices.Equal(sizes, []int{1000, 1000, 500}) {
		t.Fatal(sizes)
	}
	if none := hello(&stepwellv1.Hello{App: "a"}, nil); len(none) != 1 || none[0].GetHello().More {
		t.Fatal(none)
	}
}

func TestTheLongestParkedRunsAreReleasedFirstButNoneWithSomethingUnderWay(t *testing.T) {
	h := newHost(NewApp("a"), context.Background(), workerSettings{log: slog.New(slog.DiscardHandler), now: time.Now, maxParked: 1})
	h.stream = &stream{signal: make(chan struct{}, 1)}
	for _, runID := range []string{"pending", "working", "old", "older", "new"} {
		one := &resident{runID: runID, pending: runID == "pending", working: runID == "working"}
		h.residents.add(one)
		h.residents.setParked(one, true)
	}
	h.residents.setParked(h.residents.runs["old"], false) // it went on, and parked again
	h.residents.setParked(h.residents.runs["old"], true)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release()
	var released []string
	for _, one := range h.outgoing {
		released = append(released, one.runID)
	}
	if !slices.Equal(released, []string{"older", "new", "old"}) || len(h.residents.runs) != 2 || h.residents.parked.Len() != 2 {
		t.Fatal(released, h.residents.runs)
	}
}

func TestFailuresKeepTheTypeThatSaysSomething(t *testing.T) {
	type cardError struct{ error }
	card := &cardError{errors.New("empty")}
	path := &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}
	step := stepError(&stepwellv1.Failure{Type: "ValueError", Message: "boom"}, "charge", 4)
	cases := []struct {
		err          error
		typ, cause   string
		nonRetriable bool
	}{
		{errors.New("plain"), "error", "", false},
		{fmt.Errorf("charging: %w", card), "cardError", "", false},
		{NonRetriable(card), "cardError", "", true},
		{fmt.Errorf("outer: %w", NonRetriable(errors.New("no"))), "NonRetriableError", "", true},
		{RetryAfter(1, errors.New("busy")), "RetryAfterError", "", false},
		{path, "PathError", "error", false},
		{errors.Join(card, path), "cardError", "", false},
		{usageError("no"), "UsageError", "", true},
		{fmt.Errorf("while paying: %w", step), "StepError", "ValueError", false},
		{ErrCancelled, "Cancelled", "", false},
	}
	for _, one := range cases {
		got := toFailure(one.err, 0)
		if got.Type != one.typ || got.GetCause().GetType() != one.cause || got.NonRetriable != one.nonRetriable || got.Message != one.err.Error() {
			t.Errorf("%v: %v", one.err, got)
		}
	}
}

// brittle panics wherever it is asked for anything.
type brittle struct{}

func (*brittle) Error() string                { panic("no text") }
func (*brittle) MarshalJSON() ([]byte, error) { panic("no JSON") }
func (*brittle) UnmarshalJSON([]byte) error   { panic("no JSON") }

func TestTypesThatPanicAreErrors(t *testing.T) {
	if _, err := encode(&brittle{}, "it"); !errors.Is(err, ErrSerialization) {
		t.Error(err)
	}
	if err := decode([]byte("{}"), &brittle{}, "it"); !errors.Is(err, ErrSerialization) {
		t.Error(err)
	}
	if got := toFailure(&brittle{}, 0); got.Type != "brittle" || !strings.Contains(got.Message, "no text") {
		t.Error(got)
	}
}

func TestAFailureFitsItsLimit(t *testing.T) {
	var err error = &PanicError{Value: strings.Repeat("é", 5000), Stack: strings.Repeat("s", 5000)}
	for range 20 {
		err = fmt.Errorf("%w, and \xff", err)
	}
	for _, most := range []uint32{200, 2000, 12_000} {
		if got := toFailure(err, most); proto.Size(got) > int(most) || got.Type != "PanicError" {
			t.Errorf("%d: %d bytes, type %s", most, proto.Size(got), got.Type)
		}
	}
}

func TestMatchValue(t *testing.T) {
	event := &stepwellv1.Event{
		Id: "evt_1", Name: "a/b", TimeMs: 5, Metadata: map[string]string{"k": "v"},
		Data: &stepwellv1.Payload{Data: []byte(`{"user":{"id":9007199254740993,"none":null},"list":[1]}`)},
	}
	for path, want := range map[string]string{
		"data.user.id": "9007199254740993", "data.user.none": "null", "data.list": "[1]", "id": `"evt_1"`, "name": `"a/b"`,
		"time_ms": "5", "metadata.k": `"v"`, "data.user": `{"id":9007199254740993,"none":null}`,
	} {
		if got, err := matchValue(event, path); err != nil || string(got) != want {
			t.Errorf("%s: %s %v", path, got, err)
		}
	}
	for _, path := range []string{"data.no", "data.list.0", "data.user.id.more", "other", "", "data."} {
		if got, err := matchValue(event, path); !errors.Is(err, ErrUsage) {
			t.Errorf("%s: %s %v", path, got, err)
		}
	}
	event.Data.Encoding = "cbor"
	if _, err := matchValue(event, "data.user"); !errors.Is(err, ErrSerialization) {
		t.Error(err)
	}
}

func TestSettingsComeFromOptionsThenTheEnvironmentThenDefaults(t *testing.T) {
	t.Setenv("STEPWELL_ADDRESS", "there:1")
	t.Setenv("STEPWELL_ENVIRONMENT", "staging")
	t.Setenv("STEPWELL_DEPLOYMENT", "v7")
	worker, err := newWorkerSettings([]WorkerOption{Environment("mine")})
	if err != nil || worker.address != "there:1" || worker.environment != "mine" || worker.deployment != "v7" || worker.capacity != 500 {
		t.Fatalf("%+v %v", worker, err)
	}
	if client := newClientSettings([]ClientOption{Address("here:2")}); client.address != "here:2" || client.environment != "staging" {
		t.Fatalf("%+v", client)
	}
	for _, wrong := range []WorkerOption{Capacity(0), Capacity(100_001), MaxParked(-1), MaxParked(50_001), DrainTimeout(-1)} {
		if _, err := newWorkerSettings([]WorkerOption{wrong}); !errors.Is(err, ErrUsage) {
			t.Error(err)
		}
	}
}

func TestTheSameBuildIsTheSameDeployment(t *testing.T) {
	id := func(name string) string {
		got, err := deploymentID([]*stepwellv1.FunctionSpec{{Name: name}})
		if err != nil || len(got) != 16 {
			t.Fatal(got, err)
		}
		return got
	}
	if id("a") != id("a") || id("a") == id("b") {
		t.Fatal("another registration is another deployment, the same is not")
	}
}

func TestTheTokenOfAStepIsThatOfEveryLanguage(t *testing.T) {
	if got := token("run_1", "charge"); got != "432dfd9882db54f268b3e1041ffa93b0" {
		t.Fatal(got)
	}
}
