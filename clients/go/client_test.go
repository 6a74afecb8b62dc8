// What the client does where the server does not answer at once: the rest is tested in e2e, against a real one.

package stepwell_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	sw "stepwell.example/stepwell"
	stepwellv1 "stepwell.example/stepwell/v1"
)

// services fail a number of times, then answer; they keep what they were asked.
type services struct {
	stepwellv1.UnimplementedEventServiceServer
	stepwellv1.UnimplementedRunServiceServer
	stepwellv1.UnimplementedFunctionServiceServer
	mu       sync.Mutex
	failures []error
	sent     []*stepwellv1.SendEventsRequest
	run      *stepwellv1.Run
	waits    []uint32
}

func (s *services) fail() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failures) == 0 {
		return nil
	}
	err := s.failures[0]
	s.failures = s.failures[1:]
	return err
}

func (s *services) SendEvents(_ context.Context, request *stepwellv1.SendEventsRequest) (*stepwellv1.SendEventsResponse, error) {
	s.mu.Lock()
	s.sent = append(s.sent, request)
	s.mu.Unlock()
	if err := s.fail(); err != nil {
		return nil, err
	}
	response := &stepwellv1.SendEventsResponse{}
	for range request.Events {
		response.Statuses = append(response.Statuses, &stepwellv1.EventStatus{EventId: "evt_1", Outcome: stepwellv1.EventStatus_OUTCOME_ACCEPTED})
	}
	return response, nil
}

func (s *services) Invoke(context.Context, *stepwellv1.InvokeRequest) (*stepwellv1.InvokeResponse, error) {
	return &stepwellv1.InvokeResponse{Run: &stepwellv1.Run{Id: "run_1", FunctionId: "a/b", Status: stepwellv1.RunStatus_RUN_STATUS_RUNNING}}, s.fail()
}

func (s *services) WaitRun(_ context.Context, request *stepwellv1.WaitRunRequest) (*stepwellv1.WaitRunResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = append(s.waits, request.TimeoutMs)
	if len(s.waits) < 3 {
		return &stepwellv1.WaitRunResponse{Run: &stepwellv1.Run{Id: "run_1", Status: stepwellv1.RunStatus_RUN_STATUS_PARKED}}, nil
	}
	return &stepwellv1.WaitRunResponse{Run: s.run}, nil
}

func (s *services) ListRuns(_ context.Context, request *stepwellv1.ListRunsRequest) (*stepwellv1.ListRunsResponse, error) {
	pages := map[string]string{"": "p2", "p2": "p3", "p3": ""}
	runs := []*stepwellv1.Run{{Id: "run_a" + request.PageToken}, {Id: "run_b" + request.PageToken}}
	return &stepwellv1.ListRunsResponse{Runs: runs, NextPageToken: pages[request.PageToken]}, nil
}

func (s *services) ListFailures(_ context.Context, request *stepwellv1.ListFailuresRequest) (*stepwellv1.ListFailuresResponse, error) {
	if request.PageToken != "" {
		return &stepwellv1.ListFailuresResponse{Scanned: 1}, nil
	}
	group := &stepwellv1.FailureGroup{
		FunctionId: request.FunctionIds[0], Statuses: request.Statuses, Count: 3, LastSeenMs: request.FromMs, Message: "no user <n>", Key: "charge",
	}
	return &stepwellv1.ListFailuresResponse{Groups: []*stepwellv1.FailureGroup{group}, NextPageToken: "p2", Scanned: 9, ScannedToMs: 5}, nil
}

func newServices(t *testing.T, opts ...sw.ClientOption) (*services, *sw.Client) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, server := &services{}, grpc.NewServer()
	stepwellv1.RegisterEventServiceServer(server, s)
	stepwellv1.RegisterRunServiceServer(server, s)
	stepwellv1.RegisterFunctionServiceServer(server, s)
	go func() { _ = server.Serve(listener) }() // ends with Stop
	client, err := sw.NewClient(append(opts, sw.Address("http://"+listener.Addr().String()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); server.Stop() })
	return s, client
}

func unavailable(t *testing.T, after time.Duration) error {
	t.Helper()
	said, err := status.New(codes.Unavailable, "busy").WithDetails(
		&errdetails.ErrorInfo{Reason: "DATABASE_BUSY", Domain: "stepwell", Metadata: map[string]string{"a": "b"}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		t.Fatal(err)
	}
	return said.Err()
}

func TestAnUnavailableServerGetsTheSameRequestAgain(t *testing.T) {
	s, client := newServices(t)
	s.failures = []error{unavailable(t, 0), unavailable(t, time.Millisecond), status.Error(codes.Canceled, "the server stops")}
	id, err := client.Send(context.Background(), sw.NewEvent{Name: "a/b"})
	if err != nil || id != "evt_1" || len(s.sent) != 4 {
		t.Fatal(id, err, len(s.sent))
	}
	for _, one := range s.sent {
		if one.RequestId == "" || one.RequestId != s.sent[0].RequestId {
			t.Fatal(s.sent)
		}
	}
}

func TestTryingAgainEndsWithTheTime(t *testing.T) {
	for name, ask := range map[string]func(*sw.Client) error{
		"of the client": func(c *sw.Client) error {
			_, err := c.Send(context.Background(), sw.NewEvent{Name: "a/b"})
			return err
		},
		"of the context": func(c *sw.Client) error {
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			_, err := c.Start(ctx, "a/b", nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := newServices(t, sw.CallTimeout(200*time.Millisecond))
			s.failures = []error{unavailable(t, time.Hour)}
			err := ask(client)
			var refused *sw.APIError
			if !errors.As(err, &refused) || !errors.Is(err, sw.ErrUnavailable) || refused.Reason != "DATABASE_BUSY" ||
				refused.RetryAfter != time.Hour || refused.Metadata["a"] != "b" || !refused.Retriable() {
				t.Fatal(err)
			}
		})
	}
}

func TestWhatCannotHelpIsNotTriedAgain(t *testing.T) {
	s, client := newServices(t)
	s.failures = []error{status.Error(codes.DataLoss, "damaged")}
	_, err := client.Send(context.Background(), sw.NewEvent{Name: "a/b"})
	var refused *sw.APIError
	if !errors.As(err, &refused) || refused.Code != codes.DataLoss || len(s.sent) != 1 || refused.Retriable() {
		t.Fatal(err, len(s.sent))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := client.Send(ctx, sw.NewEvent{Name: "a/b"}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestManyEventsTravelInSeveralRequests(t *testing.T) {
	s, client := newServices(t)
	events := make([]sw.NewEvent, 5_001)
	for n := range events {
		events[n] = sw.NewEvent{Name: "a/b", Data: map[string]int{"n": n}}
	}
	statuses, err := client.SendMany(context.Background(), events, "mine")
	if err != nil || len(statuses) != 5_001 || len(s.sent) != 2 || s.sent[0].RequestId != "mine" || s.sent[1].RequestId != "mine:1" {
		t.Fatal(len(statuses), err, len(s.sent))
	}
	large := strings.Repeat("x", 900_000)
	for n := range 8 {
		events[n].Data = map[string]string{"text": large}
	}
	if _, err := client.SendMany(context.Background(), events[:8], ""); err != nil || len(s.sent) != 5 {
		t.Fatal(err, len(s.sent))
	}
	wide := sw.NewEvent{Name: "a/b", Metadata: map[string]string{"x": strings.Repeat("x", 5<<20)}}
	if _, err := client.Send(context.Background(), wide); !errors.Is(err, sw.ErrLimit) || len(s.sent) != 5 {
		t.Fatal(err)
	}
}

func TestWaitingAsksAgainUntilTheRunHasEnded(t *testing.T) {
	failed := &stepwellv1.Failure{Type: "CardError", Message: "no"}
	cases := map[string]struct {
		run  *stepwellv1.Run
		kind error
		says string
	}{
		"completed": {&stepwellv1.Run{Status: stepwellv1.RunStatus_RUN_STATUS_COMPLETED, Output: &stepwellv1.Payload{Data: []byte("7")}}, nil, ""},
		"failed":    {&stepwellv1.Run{Status: stepwellv1.RunStatus_RUN_STATUS_FAILED, Failure: failed}, sw.ErrRunFailed, "CardError: no"},
		"cancelled": {&stepwellv1.Run{Status: stepwellv1.RunStatus_RUN_STATUS_CANCELLED}, sw.ErrRunCancelled, "CANCELLED"},
		"timed out": {&stepwellv1.Run{Status: stepwellv1.RunStatus_RUN_STATUS_TIMED_OUT}, sw.ErrRunTimedOut, "TIMED_OUT"},
	}
	for name, one := range cases {
		t.Run(name, func(t *testing.T) {
			s, client := newServices(t)
			s.run = one.run
			var output int
			err := client.Invoke(context.Background(), "a/b", nil, &output)
			if one.kind == nil {
				if err != nil || output != 7 || len(s.waits) != 3 || s.waits[0] != 50_000 {
					t.Fatal(output, err, s.waits)
				}
				return
			}
			if !errors.Is(err, one.kind) || !errors.Is(err, sw.ErrInvoke) || !strings.HasSuffix(err.Error(), one.says) {
				t.Fatal(err)
			}
		})
	}
}

func TestListingsGoOverPages(t *testing.T) {
	_, client := newServices(t)
	var ids []string
	for run, err := range client.ListRuns(context.Background(), sw.RunFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if ids = append(ids, run.ID); len(ids) == 5 {
			break
		}
	}
	if got := fmt.Sprint(ids); got != "[run_a run_b run_ap2 run_bp2 run_ap3]" {
		t.Fatal(got)
	}
}

func TestFailuresAreReadPageByPage(t *testing.T) {
	_, client := newServices(t)
	ctx, since := context.Background(), time.UnixMilli(7)
	page, err := client.ListFailures(ctx, sw.FailureFilter{FunctionIDs: []string{"a/b"}, Statuses: []sw.RunStatus{sw.StatusTimedOut}, Since: since})
	if err != nil || page.Scanned != 9 || !page.ScannedTo.Equal(time.UnixMilli(5)) || len(page.Groups) != 1 {
		t.Fatalf("%+v %v", page, err)
	}
	one := page.Groups[0]
	if one.FunctionID != "a/b" || one.Count != 3 || one.Statuses[0] != sw.StatusTimedOut || !one.LastSeen.Equal(since) || one.Key != "charge" {
		t.Fatalf("%+v", one)
	}
	rest, err := client.ListFailures(ctx, sw.FailureFilter{PageToken: page.NextPageToken})
	if err != nil || rest.NextPageToken != "" || len(rest.Groups) != 0 || !rest.ScannedTo.IsZero() {
		t.Fatalf("%+v %v", rest, err)
	}
	var api *sw.APIError
	if _, err := client.ListFailures(ctx, sw.FailureFilter{Statuses: []sw.RunStatus{"NO_SUCH"}}); !errors.As(err, &api) || api.Reason != "BAD_STATUS" {
		t.Fatal(err)
	}
}
