// What the server says of events, functions, runs and workers, as plain values.

package stepwell

import (
	"encoding/json"
	"strings"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// RunStatus is where a run stands.
type RunStatus string

// Where a run can stand; the server may know more.
const (
	StatusQueued    RunStatus = "QUEUED"
	StatusRunning   RunStatus = "RUNNING"
	StatusParked    RunStatus = "PARKED"
	StatusPaused    RunStatus = "PAUSED"
	StatusCompleted RunStatus = "COMPLETED"
	StatusFailed    RunStatus = "FAILED"
	StatusCancelled RunStatus = "CANCELLED"
	StatusTimedOut  RunStatus = "TIMED_OUT"
	StatusSkipped   RunStatus = "SKIPPED"
)

// Ended tells that the run will not change any more.
func (s RunStatus) Ended() bool {
	switch s {
	case StatusCompleted, StatusFailed, StatusCancelled, StatusTimedOut, StatusSkipped:
		return true
	}
	return false
}

const statusPrefix = "RUN_STATUS_"

func statusFrom(status stepwellv1.RunStatus) RunStatus {
	return RunStatus(strings.TrimPrefix(status.String(), statusPrefix))
}

// Failure is what went wrong, in whatever language. Reason is set where Stepwell made it.
type Failure struct {
	Type         string
	Message      string
	Reason       string
	Stack        string
	NonRetriable bool
	Details      json.RawMessage
	Cause        *Failure
}

func failureFrom(message *stepwellv1.Failure) *Failure {
	if message == nil {
		return nil
	}
	return &Failure{
		Type: message.GetType(), Message: message.GetMessage(), Reason: message.GetReason(), Stack: message.GetStack(),
		NonRetriable: message.GetNonRetriable(), Details: message.GetDetails().GetData(), Cause: failureFrom(message.GetCause()),
	}
}

// WaitingFor is one thing that a run waits for. Kind is SLEEP, EVENT, CHILD, RETRY, NO_WORKER, CAPACITY, … CutAfter is the
// event after which a wait stopped looking back, if there were too many.
type WaitingFor struct {
	Kind     string
	Message  string
	Key      string
	Event    string
	Match    string
	Until    time.Time
	RunID    string
	CutAfter string
}

func waitingFrom(messages []*stepwellv1.WaitingFor) []WaitingFor {
	var all []WaitingFor
	for _, m := range messages {
		all = append(all, WaitingFor{
			Kind: strings.TrimPrefix(m.GetKind().String(), "KIND_"), Message: m.GetMessage(), Key: m.GetKey(), Event: m.GetEvent(),
			Match: m.GetMatch(), Until: timeFrom(m.GetUntilMs()), RunID: m.GetRunId(),
			CutAfter: m.GetCutAfter(),
		})
	}
	return all
}

// RunState is a run. Times that have not come are zero. Output is JSON, once COMPLETED. Where one run was asked for, WaitingFor
// says why it has not ended, and Deadline when its time-out will be over.
type RunState struct {
	ID              string
	FunctionID      string
	Status          RunStatus
	PausedReason    string
	EventID         string
	ParentRunID     string
	ParentKey       string
	Deployment      string
	Turn            int
	Created         time.Time
	Started         time.Time
	Ended           time.Time
	CancelRequested bool
	Output          json.RawMessage
	Failure         *Failure
	WaitingFor      []WaitingFor
	Deadline        time.Time
}

func runFrom(m *stepwellv1.Run, waiting []*stepwellv1.WaitingFor) *RunState {
	paused := strings.TrimPrefix(m.GetPausedReason().String(), "PAUSED_REASON_")
	if paused == "UNSPECIFIED" {
		paused = ""
	}
	return &RunState{
		ID: m.GetId(), FunctionID: m.GetFunctionId(), Status: statusFrom(m.GetStatus()), PausedReason: paused,
		EventID: m.GetEventId(), ParentRunID: m.GetParentRunId(), ParentKey: m.GetParentKey(), Deployment: m.GetDeployment(),
		Turn: int(m.GetTurn()), Created: timeFrom(m.GetCreatedMs()), Started: timeFrom(m.GetStartedMs()), Ended: timeFrom(m.GetEndedMs()),
		CancelRequested: m.GetCancelRequested(), Output: m.GetOutput().GetData(), Failure: failureFrom(m.GetFailure()),
		WaitingFor: waitingFrom(waiting), Deadline: timeFrom(m.GetDeadlineMs()),
	}
}

// JournalEntry is one entry of a run's journal. Number is its place in what the code saw; 0 while it has not seen it.
type JournalEntry struct {
	Key     string
	Kind    string
	Target  string
	Number  int
	Attempt int
	Started time.Time
	Ended   time.Time
	Until   time.Time
	Output  json.RawMessage
	Failure *Failure
	RunID   string
}

func entriesFrom(messages []*stepwellv1.JournalEntry) []JournalEntry {
	var all []JournalEntry
	for _, m := range messages {
		all = append(all, JournalEntry{
			Key: m.GetKey(), Kind: m.GetKind(), Target: m.GetTarget(), Number: int(m.GetNumber()), Attempt: int(m.GetAttempt()),
			Started: timeFrom(m.GetStartedMs()), Ended: timeFrom(m.GetEndedMs()), Until: timeFrom(m.GetUntilMs()),
			Output: m.GetOutput().GetData(), Failure: failureFrom(m.GetFailure()), RunID: m.GetRunId(),
		})
	}
	return all
}

// RunChange is a run as it is now, and the journal entries that are new or changed.
type RunChange struct {
	Run     *RunState
	Entries []JournalEntry
}

// EventStatus is what became of one event of a batch. EventID names the stored event; for a duplicate, the earlier one.
type EventStatus struct {
	EventID string
	// Outcome is ACCEPTED, DUPLICATE or REFUSED; Reason and Message say why it was refused.
	Outcome string
	Reason  string
	Message string
}

// StoredEvent is an event as the server keeps it, with the runs it started if it was asked for by its id.
type StoredEvent struct {
	Event[json.RawMessage]
	Accepted time.Time
	RunIDs   []string
}

func storedFrom(m *stepwellv1.Event, runIDs []string) *StoredEvent {
	return &StoredEvent{
		Event: Event[json.RawMessage]{
			ID: m.GetId(), Name: m.GetName(), Data: orEmpty(m.GetData().GetData()), Time: fromMs(m.GetTimeMs()),
			Metadata: m.GetMetadata(), SenderID: m.GetSenderId(),
		},
		Accepted: fromMs(m.GetAcceptedMs()), RunIDs: runIDs,
	}
}

func orEmpty(data []byte) json.RawMessage {
	if len(data) == 0 {
		return json.RawMessage("{}")
	}
	return data
}

// FunctionInfo is a registered function. Workers counts the connected ones that serve it. A time-out is zero if there is none.
// Unjudged says, in words, which condition took more than its budget at which event; empty if none did. The JSON Schemas are
// nil where the function says nothing of its input or output.
type FunctionInfo struct {
	ID           string
	App          string
	Deployment   string
	Name         string
	Triggers     Triggers
	Strict       bool
	Workers      int
	Timeout      time.Duration
	StartTimeout time.Duration
	Unjudged     string
	InputSchema  json.RawMessage
	OutputSchema json.RawMessage
}

func functionFrom(m *stepwellv1.Function) FunctionInfo {
	info := FunctionInfo{
		ID: m.GetId(), App: m.GetApp(), Deployment: m.GetDeployment(), Name: m.GetSpec().GetName(),
		Strict: m.GetSpec().GetStrict(), Workers: int(m.GetWorkers()),
		Timeout:      time.Duration(m.GetSpec().GetTimeoutMs()) * time.Millisecond,
		StartTimeout: time.Duration(m.GetSpec().GetStartTimeoutMs()) * time.Millisecond, Unjudged: m.GetUnjudged(),
		InputSchema: m.GetSpec().GetInputSchema(), OutputSchema: m.GetSpec().GetOutputSchema(),
	}
	for _, trigger := range m.GetSpec().GetTriggers() {
		info.Triggers = append(info.Triggers, Trigger{Event: trigger.GetEvent(), If: trigger.GetCondition()})
	}
	return info
}

// WorkerInfo is a worker's session. Silent is the time since the server heard of it.
type WorkerInfo struct {
	SessionID   string
	App         string
	Deployment  string
	Instance    string
	SDK         string
	Connected   bool
	Draining    bool
	Capacity    int
	Executing   int
	Parked      int
	Opened      time.Time
	FunctionIDs []string
	Silent      time.Duration
}

func workerFrom(m *stepwellv1.Worker) WorkerInfo {
	return WorkerInfo{
		SessionID: m.GetSessionId(), App: m.GetApp(), Deployment: m.GetDeployment(), Instance: m.GetInstance(), SDK: m.GetSdk(),
		Connected: m.GetConnected(), Draining: m.GetDraining(), Capacity: int(m.GetCapacity()), Executing: int(m.GetExecuting()),
		Parked: int(m.GetParked()), Opened: timeFrom(m.GetOpenedMs()), FunctionIDs: m.GetFunctionIds(),
		Silent: time.Duration(m.GetSilentMs()) * time.Millisecond,
	}
}

// ClockAdvance is where a dev server's clock stopped. Complete is false if the deadline came first.
type ClockAdvance struct {
	Now      time.Time
	Offset   time.Duration
	Complete bool
	Fired    int
}

// ServerInfo is what a server is.
type ServerInfo struct {
	Version            string
	Profile            string
	DefaultEnvironment string
	Database           string
	Now                time.Time
}

// timeFrom leaves a time that has not come zero.
func timeFrom(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return fromMs(ms)
}
