// Runs, as a client starts them, waits for them, reads and cancels them.

package stepwell

import (
	"context"
	"fmt"
	"iter"
	"time"

	"google.golang.org/grpc/codes"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// poll is how long one call waits for the end of a run; the server allows 55 s.
const poll = 50 * time.Second

// StartOption is an option of Start and Invoke of a Client: RequestID, Metadata.
type StartOption func(*stepwellv1.InvokeRequest)

// RequestID makes the same id within 24 hours the same run. Without it each call starts its own.
func RequestID(id string) StartOption {
	return func(r *stepwellv1.InvokeRequest) { r.RequestId = clean(id) }
}

// Metadata is free-form text that the run carries along.
func Metadata(metadata map[string]string) StartOption {
	return func(r *stepwellv1.InvokeRequest) {
		r.Metadata = map[string]string{}
		for name, value := range metadata {
			r.Metadata[clean(name)] = clean(value)
		}
	}
}

// RunHandle is a run that a client started.
type RunHandle struct {
	RunID  string
	client *Client
	run    *stepwellv1.Run
}

// Handle is that of a run which an event started, for example.
func (c *Client) Handle(runID string) *RunHandle {
	return &RunHandle{runID, c, &stepwellv1.Run{Id: runID}}
}

// Start starts a run of a function, by "app/name", and returns once it is durable.
func (c *Client) Start(ctx context.Context, functionID string, input any, opts ...StartOption) (*RunHandle, error) {
	return c.start(ctx, functionID, input, 0, opts)
}

// Invoke starts a run, waits for its end for as long as ctx allows, and decodes its output. See RunHandle.Result.
func (c *Client) Invoke(ctx context.Context, functionID string, input, output any, opts ...StartOption) error {
	handle, err := c.start(ctx, functionID, input, nextWait(ctx), opts)
	if err != nil {
		return err
	}
	return handle.Result(ctx, output)
}

// Call is Client.Invoke with the types of the function.
func (f *Func[In, Out]) Call(ctx context.Context, client *Client, input In, opts ...StartOption) (output Out, err error) {
	err = client.Invoke(ctx, f.ID(), input, &output, opts...)
	return output, err
}

func (c *Client) start(ctx context.Context, functionID string, input any, wait time.Duration, opts []StartOption) (*RunHandle, error) {
	data, err := encode(input, "the input of "+functionID)
	if err != nil {
		return nil, err
	}
	if len(data) > resultBytes {
		return nil, limitError("the input of %s has %d bytes; result_bytes is %d", functionID, len(data), resultBytes)
	}
	request := &stepwellv1.InvokeRequest{
		Environment: c.settings.environment, FunctionId: clean(functionID), Input: &stepwellv1.Payload{Data: data},
		RequestId: newRequestID(), WaitMs: uint32(toMs(wait)),
	}
	for _, opt := range opts {
		opt(request)
	}
	request.Metadata = carried(c.settings.tracer, ctx, request.Metadata)
	response, err := ask(ctx, max(c.settings.timeout, wait+slack), c.functs.Invoke, request)
	if err != nil {
		return nil, err
	}
	return &RunHandle{response.GetRun().GetId(), c, response.GetRun()}, nil
}

// Result waits for the end of the run, for as long as ctx allows, and decodes its output unless into is nil. Its error is a
// *StepError that is ErrRunFailed, ErrRunCancelled or ErrRunTimedOut; that of ctx if it is done first, and the run goes on.
func (h *RunHandle) Result(ctx context.Context, into any) error {
	if !statusFrom(h.run.GetStatus()).Ended() {
		run, err := h.client.awaitEnd(ctx, h.RunID)
		if err != nil {
			return err
		}
		h.run = run
	}
	if status := statusFrom(h.run.GetStatus()); status != StatusCompleted {
		return runError(h.run, status)
	}
	if into == nil {
		return nil
	}
	return decode(h.run.GetOutput().GetData(), into, "the output of "+h.RunID)
}

// runError is what a run that did not complete ended with.
func runError(run *stepwellv1.Run, status RunStatus) *StepError {
	failure := run.GetFailure()
	said := string(status)
	if failure != nil {
		said = describe(failure)
	}
	reason := reasonRunFailed
	switch status {
	case StatusCancelled:
		reason = reasonRunCancelled
	case StatusTimedOut:
		reason = reasonRunTimedOut
	}
	return &StepError{
		Type: failure.GetType(), Message: failure.GetMessage(), Reason: reason, invoke: true, failure: failure,
		said: fmt.Sprintf("%s of %s: %s", run.GetId(), run.GetFunctionId(), said),
	}
}

// Status is the run as it is now, with what it waits for.
func (h *RunHandle) Status(ctx context.Context) (*RunState, error) {
	return h.client.GetRun(ctx, h.RunID)
}

// Cancel asks the run to end; see Client.CancelRun.
func (h *RunHandle) Cancel(ctx context.Context, reason string) (*RunState, error) {
	return h.client.CancelRun(ctx, h.RunID, reason)
}

// awaitEnd waits until a run has ended, or ctx is done.
func (c *Client) awaitEnd(ctx context.Context, runID string) (*stepwellv1.Run, error) {
	for {
		wait := nextWait(ctx)
		request := &stepwellv1.WaitRunRequest{Environment: c.settings.environment, RunId: clean(runID), TimeoutMs: uint32(max(toMs(wait), 1))}
		response, err := ask(ctx, max(c.settings.timeout, wait+slack), c.runs.WaitRun, request)
		switch {
		case err == nil && statusFrom(response.GetRun().GetStatus()).Ended():
			return response.GetRun(), nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%s has not ended: %w", runID, ctx.Err())
		case err != nil:
			return nil, err
		case wait == 0:
			return nil, fmt.Errorf("%s has not ended: %w", runID, context.DeadlineExceeded)
		}
	}
}

// nextWait is how long the next call may wait on the server: a little less than ctx allows, so that it can answer.
func nextWait(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return poll
	}
	return min(poll, max(time.Until(deadline)-100*time.Millisecond, 0))
}

// GetRun is one run, with what it waits for.
func (c *Client) GetRun(ctx context.Context, runID string) (*RunState, error) {
	request := &stepwellv1.GetRunRequest{Environment: c.settings.environment, RunId: clean(runID)}
	response, err := ask(ctx, c.settings.timeout, c.runs.GetRun, request)
	if err != nil {
		return nil, err
	}
	return runFrom(response.GetRun(), response.GetWaitingFor()), nil
}

// RunFilter chooses runs; all that is set must fit.
type RunFilter struct {
	FunctionID  string
	App         string
	Statuses    []RunStatus
	EventID     string
	ParentRunID string
	Since       time.Time
	Until       time.Time
	// Condition is CEL over run, output and event, judged by the server.
	Condition string
	// ErrorType is that of the failure, or of a cause of it.
	ErrorType string
}

// ListRuns are runs, newest first, without their outputs. Pages are asked for as they are needed.
func (c *Client) ListRuns(ctx context.Context, filter RunFilter) iter.Seq2[*RunState, error] {
	next := func(token string) (*stepwellv1.ListRunsResponse, error) {
		request := &stepwellv1.ListRunsRequest{
			Environment: c.settings.environment, FunctionId: clean(filter.FunctionID), App: clean(filter.App),
			EventId: clean(filter.EventID), ParentRunId: clean(filter.ParentRunID), FromMs: msOf(filter.Since),
			UntilMs: msOf(filter.Until), PageSize: pageSize, PageToken: token, Condition: clean(filter.Condition),
			ErrorType: clean(filter.ErrorType),
		}
		var err error
		if request.Statuses, err = statusesOf(filter.Statuses); err != nil {
			return nil, err
		}
		return ask(ctx, c.settings.timeout, c.runs.ListRuns, request)
	}
	return pages(next, (*stepwellv1.ListRunsResponse).GetNextPageToken, func(page *stepwellv1.ListRunsResponse) []*RunState {
		var runs []*RunState
		for _, one := range page.GetRuns() {
			runs = append(runs, runFrom(one, nil))
		}
		return runs
	})
}

// Journal is what a run did: outcomes its code saw, in order; then those on their way; then what is open.
func (c *Client) Journal(ctx context.Context, runID string) ([]JournalEntry, error) {
	next := func(token string) (*stepwellv1.GetJournalResponse, error) {
		request := &stepwellv1.GetJournalRequest{Environment: c.settings.environment, RunId: clean(runID), PageToken: token}
		return ask(ctx, c.settings.timeout, c.runs.GetJournal, request)
	}
	entries := func(page *stepwellv1.GetJournalResponse) []JournalEntry { return entriesFrom(page.GetEntries()) }
	var all []JournalEntry
	for entry, err := range pages(next, (*stepwellv1.GetJournalResponse).GetNextPageToken, entries) {
		if err != nil {
			return nil, err
		}
		all = append(all, entry)
	}
	return all, nil
}

// WaitRun waits until a run has ended, for as long as ctx allows.
func (c *Client) WaitRun(ctx context.Context, runID string) (*RunState, error) {
	run, err := c.awaitEnd(ctx, runID)
	if err != nil {
		return nil, err
	}
	return runFrom(run, nil), nil
}

// WatchRun is the run each time something changes, until it has ended.
func (c *Client) WatchRun(ctx context.Context, runID string) iter.Seq2[RunChange, error] {
	request := &stepwellv1.WatchRunRequest{Environment: c.settings.environment, RunId: clean(runID)}
	return watch(ctx, c.runs.WatchRun, request, func(response *stepwellv1.WatchRunResponse) []RunChange {
		return []RunChange{{runFrom(response.GetRun(), response.GetWaitingFor()), entriesFrom(response.GetEntries())}}
	})
}

// CancelRun asks a run to end. It may still run clean-up steps; WaitRun tells when it has ended.
func (c *Client) CancelRun(ctx context.Context, runID, reason string) (*RunState, error) {
	request := &stepwellv1.CancelRunRequest{Environment: c.settings.environment, RunId: clean(runID), Reason: clean(reason)}
	response, err := ask(ctx, c.settings.timeout, c.runs.CancelRun, request)
	if err != nil {
		return nil, err
	}
	return runFrom(response.GetRun(), nil), nil
}

// refusedEvent is the error of an event that was sent alone.
func refusedEvent(status EventStatus) *APIError {
	return &APIError{Code: codes.InvalidArgument, Reason: status.Reason, Message: status.Message}
}
