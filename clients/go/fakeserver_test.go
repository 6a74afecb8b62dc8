// A server of one stream after the other that tests script: it answers Hello, keeps frames, and says what it is told.

package stepwell_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	sw "stepwell.example/stepwell"
	stepwellv1 "stepwell.example/stepwell/v1"
)

const within = 20 * time.Second

type fakeServer struct {
	stepwellv1.UnimplementedStepServiceServer
	t       *testing.T
	address string
	grpc    *grpc.Server
	links   chan *link

	mu sync.Mutex
	// greet answers a Hello: Welcome, or an error that ends the stream, or neither: then it hangs.
	greet func(*link) (*stepwellv1.Welcome, error)
	// silent links acknowledge nothing.
	silent bool
}

// link is one stream.
type link struct {
	server *fakeServer
	hello  []*stepwellv1.Hello
	frames chan *stepwellv1.ConnectRequest // but heartbeats
	beats  chan *stepwellv1.Heartbeat
	out    chan *stepwellv1.ConnectResponse
	over   chan error
}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	s := &fakeServer{t: t, links: make(chan *link, 10)}
	s.greet = func(*link) (*stepwellv1.Welcome, error) { return welcome(1), nil }
	s.listen("127.0.0.1:0")
	t.Cleanup(func() { s.grpc.Stop() })
	return s
}

func (s *fakeServer) listen(address string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.address = listener.Addr().String()
	s.grpc = grpc.NewServer()
	stepwellv1.RegisterStepServiceServer(s.grpc, s)
	go func(server *grpc.Server) { _ = server.Serve(listener) }(s.grpc) // ends with Stop
}

// change sets what the server does from the next stream on.
func (s *fakeServer) change(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// welcome is that of the session ses_1 in an epoch, with times that no test has to wait for.
func welcome(epoch uint64) *stepwellv1.Welcome {
	return &stepwellv1.Welcome{SessionId: "ses_1", Epoch: epoch, LeaseMs: 60_000, HeartbeatMs: 50, Limits: &stepwellv1.Limits{}}
}

func (s *fakeServer) Connect(stream grpc.BidiStreamingServer[stepwellv1.ConnectRequest, stepwellv1.ConnectResponse]) error {
	l := &link{
		server: s, frames: make(chan *stepwellv1.ConnectRequest, 10_000), beats: make(chan *stepwellv1.Heartbeat, 10_000),
		out: make(chan *stepwellv1.ConnectResponse, 1000), over: make(chan error, 1),
	}
	for more := true; more; {
		frame, err := stream.Recv()
		if err != nil {
			return err
		}
		l.hello = append(l.hello, frame.GetHello())
		more = frame.GetHello().GetMore()
	}
	s.mu.Lock()
	answer, err := s.greet(l)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if answer == nil {
		s.links <- l
		select {
		case err := <-l.over:
			return err
		case <-stream.Context().Done():
			return nil
		}
	}
	if err := stream.Send(&stepwellv1.ConnectResponse{Frame: &stepwellv1.ConnectResponse_Welcome{Welcome: answer}}); err != nil {
		return err
	}
	s.links <- l
	go l.read(stream)
	for {
		select {
		case frame := <-l.out:
			if err := stream.Send(frame); err != nil {
				return err
			}
		case err := <-l.over:
			return err
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (l *link) read(stream grpc.BidiStreamingServer[stepwellv1.ConnectRequest, stepwellv1.ConnectResponse]) {
	for {
		frame, err := stream.Recv()
		if err != nil {
			if err == io.EOF {
				l.end(nil)
			}
			close(l.frames)
			return
		}
		if beat := frame.GetHeartbeat(); beat != nil {
			l.beats <- beat
			continue
		}
		if commands := frame.GetCommands(); commands != nil {
			l.acknowledge(commands)
		}
		l.frames <- frame
	}
}

// acknowledge answers what has numbers, unless the server is silent.
func (l *link) acknowledge(commands *stepwellv1.Commands) {
	l.server.mu.Lock()
	silent := l.server.silent
	l.server.mu.Unlock()
	if silent {
		return
	}
	work := &stepwellv1.Work{}
	note := func(runID string, turn uint32, number uint64) {
		work.Acks = append(work.Acks, &stepwellv1.Ack{RunId: runID, Turn: turn, Number: number})
	}
	for _, m := range commands.Results {
		note(m.RunId, m.Turn, m.Number)
	}
	for _, m := range commands.Delivered {
		note(m.RunId, m.Turn, m.Keys[len(m.Keys)-1].Number)
	}
	for _, m := range commands.Completes {
		note(m.RunId, m.Turn, m.Number)
	}
	for _, m := range commands.Fails {
		note(m.RunId, m.Turn, m.Number)
	}
	for _, m := range commands.Cancelled {
		note(m.RunId, m.Turn, m.Number)
	}
	if len(work.Acks) > 0 {
		l.work(work)
	}
}

func (l *link) work(work *stepwellv1.Work) {
	l.out <- &stepwellv1.ConnectResponse{Frame: &stepwellv1.ConnectResponse_Work{Work: work}}
}

func (l *link) assign(runID, function string, turn uint32) {
	l.work(&stepwellv1.Work{Assigns: []*stepwellv1.Assign{assignOf(runID, function, turn)}})
}

func assignOf(runID, function string, turn uint32) *stepwellv1.Assign {
	return &stepwellv1.Assign{
		RunId: runID, Turn: turn, FunctionId: "test/" + function, CreatedMs: 1000, Event: &stepwellv1.Event{Id: "evt_1", Name: "test/start"},
	}
}

// end ends the stream.
func (l *link) end(err error) {
	select {
	case l.over <- err:
	default:
	}
}

// link is the next stream of the worker.
func (s *fakeServer) link() *link {
	s.t.Helper()
	select {
	case l := <-s.links:
		return l
	case <-time.After(within):
		s.t.Fatal("no stream came")
		return nil
	}
}

// commands is the next Commands frame.
func (l *link) commands() *stepwellv1.Commands {
	l.server.t.Helper()
	for {
		if commands := l.frame().GetCommands(); commands != nil {
			return commands
		}
	}
}

func (l *link) frame() *stepwellv1.ConnectRequest {
	l.server.t.Helper()
	select {
	case frame, ok := <-l.frames:
		if !ok {
			l.server.t.Fatal("the stream ended")
		}
		return frame
	case <-time.After(within):
		l.server.t.Fatal("no frame came")
		return nil
	}
}

// waitFor is the next Commands frame that fits; those before it are passed over.
func (l *link) waitFor(fits func(*stepwellv1.Commands) bool) *stepwellv1.Commands {
	l.server.t.Helper()
	for {
		if commands := l.commands(); fits(commands) {
			return commands
		}
	}
}

// beat is the next heartbeat that fits.
func (l *link) beat(fits func(*stepwellv1.Heartbeat) bool) *stepwellv1.Heartbeat {
	l.server.t.Helper()
	for deadline := time.After(within); ; {
		select {
		case beat := <-l.beats:
			if fits(beat) {
				return beat
			}
		case <-deadline:
			l.server.t.Fatal("no such heartbeat came")
		}
	}
}

func (l *link) residents() map[string]uint32 {
	all := map[string]uint32{}
	for _, hello := range l.hello {
		for _, one := range hello.GetResidents() {
			all[one.GetRunId()] = one.GetTurn()
		}
	}
	return all
}

// working serves an app at the server until the test ends, or until stop; ended is what Serve returned.
func working(t *testing.T, s *fakeServer, app *sw.App, opts ...sw.WorkerOption) (stop func(), ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	opts = append([]sw.WorkerOption{
		sw.Address(s.address), sw.Deployment("d"), sw.DrainTimeout(0), sw.Logger(slog.New(slog.DiscardHandler)),
	}, opts...)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		done <- app.Serve(ctx, opts...)
	}()
	t.Cleanup(func() {
		cancel()
		<-finished
		s.grpc.Stop()
	})
	return cancel, done
}

func equal(a, b proto.Message) bool { return proto.Equal(a, b) }
