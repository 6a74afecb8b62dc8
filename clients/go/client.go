// Client: sends events, invokes functions, reads and controls runs.

package stepwell

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const (
	batchEvents = 5_000
	batchBytes  = 3_500 * 1024
	pageSize    = 100
	// The server's limits of the same names.
	eventBytes  = 1024 * 1024
	sendBytes   = 4 * 1024 * 1024
	resultBytes = 2 * 1024 * 1024
)

// Client calls a server. It may be used by any number of goroutines. Errors are *APIError; while the server is unreachable,
// calls are tried again until their context's deadline, or for the CallTimeout.
type Client struct {
	settings clientSettings
	conn     *channel
	events   stepwellv1.EventServiceClient
	functs   stepwellv1.FunctionServiceClient
	runs     stepwellv1.RunServiceClient
	admin    stepwellv1.AdminServiceClient
}

// NewClient makes a client; it connects at the first call. Close it after use.
func NewClient(opts ...ClientOption) (*Client, error) {
	settings := newClientSettings(opts)
	nodes, err := newAddresses(settings.address)
	if err != nil {
		return nil, err
	}
	conn := newChannel(nodes)
	return &Client{
		settings, conn, stepwellv1.NewEventServiceClient(conn), stepwellv1.NewFunctionServiceClient(conn),
		stepwellv1.NewRunServiceClient(conn), stepwellv1.NewAdminServiceClient(conn),
	}, nil
}

// Close ends the connections.
func (c *Client) Close() error { return c.conn.close() }

// Conn is the connection, for the generated clients of the package v1.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Send sends an event and returns its id once it is durable. With an ID of yours, sending it twice stores it once.
func (c *Client) Send(ctx context.Context, event NewEvent) (string, error) {
	statuses, err := c.SendMany(ctx, []NewEvent{event}, "")
	if err != nil {
		return "", err
	}
	if one := statuses[0]; one.Outcome == "REFUSED" {
		return "", refusedEvent(one)
	}
	return statuses[0].EventID, nil
}

// SendMany sends events, in requests of at most 5,000; one status for each, in order. A refused one stops no other. What
// cannot be an event is an error before any is sent. The same request id (within 24 hours, with the same events) stores
// nothing twice; an empty one stands for one of its own.
func (c *Client) SendMany(ctx context.Context, events []NewEvent, requestID string) ([]EventStatus, error) {
	batches, err := batchesOf(events)
	if err != nil {
		return nil, err
	}
	if requestID == "" {
		requestID = newRequestID()
	}
	var statuses []EventStatus
	for number, batch := range batches {
		for _, event := range batch {
			event.Metadata = carried(c.settings.tracer, ctx, event.Metadata)
		}
		request := &stepwellv1.SendEventsRequest{Environment: c.settings.environment, RequestId: clean(requestID), Events: batch}
		if number > 0 {
			request.RequestId += ":" + strconv.Itoa(number)
		}
		response, err := ask(ctx, c.settings.timeout, c.events.SendEvents, request)
		if err != nil {
			return statuses, err
		}
		for _, one := range response.GetStatuses() {
			outcome := strings.TrimPrefix(one.GetOutcome().String(), "OUTCOME_")
			statuses = append(statuses, EventStatus{one.GetEventId(), outcome, one.GetReason(), one.GetMessage()})
		}
	}
	return statuses, nil
}

func batchesOf(events []NewEvent) (batches [][]*stepwellv1.NewEvent, err error) {
	size := 0
	for _, event := range events {
		message, err := event.message(eventBytes)
		if err != nil {
			return nil, err
		}
		weight := proto.Size(message) + 8
		if weight > sendBytes { // its metadata, say
			return nil, limitError("event %q has %d bytes; send_bytes is %d", event.Name, weight, sendBytes)
		}
		last := len(batches) - 1
		if last < 0 || len(batches[last]) == batchEvents || size+weight > batchBytes {
			batches = append(batches, nil)
			last, size = last+1, 0
		}
		batches[last] = append(batches[last], message)
		size += weight
	}
	return batches, nil
}

// GetEvent is one event with the runs it started.
func (c *Client) GetEvent(ctx context.Context, eventID string) (*StoredEvent, error) {
	request := &stepwellv1.GetEventRequest{Environment: c.settings.environment, EventId: clean(eventID)}
	response, err := ask(ctx, c.settings.timeout, c.events.GetEvent, request)
	if err != nil {
		return nil, err
	}
	return storedFrom(response.GetEvent(), response.GetRunIds()), nil
}

// EventFilter chooses events. Zero fields choose all.
type EventFilter struct {
	// Name; a trailing * matches any rest.
	Name  string
	Since time.Time
	Until time.Time
	// Condition is CEL over event, judged by the server.
	Condition   string
	OldestFirst bool
}

// ListEvents are events, newest first unless the filter says otherwise. Pages are asked for as they are needed.
func (c *Client) ListEvents(ctx context.Context, filter EventFilter) iter.Seq2[*StoredEvent, error] {
	next := func(token string) (*stepwellv1.ListEventsResponse, error) {
		return ask(ctx, c.settings.timeout, c.events.ListEvents, &stepwellv1.ListEventsRequest{
			Environment: c.settings.environment, Name: clean(filter.Name), FromMs: msOf(filter.Since), UntilMs: msOf(filter.Until),
			PageSize: pageSize, PageToken: token, Condition: clean(filter.Condition), OldestFirst: filter.OldestFirst,
		})
	}
	return pages(next, (*stepwellv1.ListEventsResponse).GetNextPageToken, func(page *stepwellv1.ListEventsResponse) []*StoredEvent {
		return storedAll(page.GetEvents())
	})
}

// WatchEvents are events as they are accepted, from now on. A trailing * in the name matches any rest; an empty one all.
func (c *Client) WatchEvents(ctx context.Context, name string) iter.Seq2[*StoredEvent, error] {
	request := &stepwellv1.WatchEventsRequest{Environment: c.settings.environment, Name: clean(name)}
	return watch(ctx, c.events.WatchEvents, request, func(response *stepwellv1.WatchEventsResponse) []*StoredEvent {
		return storedAll(response.GetEvents())
	})
}

func storedAll(messages []*stepwellv1.Event) []*StoredEvent {
	var all []*StoredEvent
	for _, one := range messages {
		all = append(all, storedFrom(one, nil))
	}
	return all
}

// Functions are the registered ones, of one app or (empty) of all.
func (c *Client) Functions(ctx context.Context, app string) ([]FunctionInfo, error) {
	request := &stepwellv1.ListFunctionsRequest{Environment: c.settings.environment, App: clean(app)}
	response, err := ask(ctx, c.settings.timeout, c.functs.ListFunctions, request)
	var all []FunctionInfo
	for _, one := range response.GetFunctions() {
		all = append(all, functionFrom(one))
	}
	return all, err
}

// GetFunction is one function, by "app/name".
func (c *Client) GetFunction(ctx context.Context, functionID string) (FunctionInfo, error) {
	request := &stepwellv1.GetFunctionRequest{Environment: c.settings.environment, FunctionId: clean(functionID)}
	response, err := ask(ctx, c.settings.timeout, c.functs.GetFunction, request)
	return functionFrom(response.GetFunction()), err
}

// Workers are those that are connected, or were until just now.
func (c *Client) Workers(ctx context.Context) ([]WorkerInfo, error) {
	request := &stepwellv1.ListWorkersRequest{Environment: c.settings.environment}
	response, err := ask(ctx, c.settings.timeout, c.admin.ListWorkers, request)
	var all []WorkerInfo
	for _, one := range response.GetWorkers() {
		all = append(all, workerFrom(one))
	}
	return all, err
}

// AdvanceClock moves a dev server's clock, due instant by due instant, for at most deadline (0: 30 s) of real time.
func (c *Client) AdvanceClock(ctx context.Context, by, deadline time.Duration) (ClockAdvance, error) {
	if by < 0 || by > durationMax {
		return ClockAdvance{}, usageError("the clock moves forward, by at most 366 days; not by %s", by)
	}
	if deadline <= 0 {
		deadline = 30 * time.Second
	}
	request := &stepwellv1.AdvanceClockRequest{AdvanceMs: uint64(toMs(by)), DeadlineMs: uint32(min(toMs(deadline), 600_000))}
	response, err := once(ctx, deadline+slack, c.admin.AdvanceClock, request)
	return ClockAdvance{
		Now: timeFrom(response.GetNowMs()), Offset: time.Duration(response.GetOffsetMs()) * time.Millisecond,
		Complete: response.GetComplete(), Fired: int(response.GetFired()),
	}, err
}

// ServerInfo tells what the server is.
func (c *Client) ServerInfo(ctx context.Context) (ServerInfo, error) {
	response, err := ask(ctx, c.settings.timeout, c.admin.GetServerInfo, &stepwellv1.GetServerInfoRequest{})
	return ServerInfo{
		response.GetVersion(), response.GetProfile(), response.GetDefaultEnvironment(), response.GetDatabase(), timeFrom(response.GetNowMs()),
	}, err
}

func newRequestID() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return fmt.Sprintf("%x", random)
}

func msOf(instant time.Time) int64 {
	if instant.IsZero() {
		return 0
	}
	return instant.UnixMilli()
}
