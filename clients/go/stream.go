// One stream of a worker: Hello and Welcome, a reader, one writer that takes all that is there, heartbeats.

package stepwell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const (
	welcomeTimeout = 10 * time.Second
	leaveTimeout   = time.Second
	// leaseShare, in tenths, is the part of the lease that may pass in silence before everything is given up.
	leaseShare = 8
)

var (
	errSilent    = errors.New("nothing heard from the server")
	errOverslept = errors.New("this process stood still for most of a lease")
)

type stream struct {
	host    *host
	address string
	conn    *grpc.ClientConn
	call    grpc.BidiStreamingClient[stepwellv1.ConnectRequest, stepwellv1.ConnectResponse]
	ctx     context.Context
	cancel  context.CancelCauseFunc
	welcome *stepwellv1.Welcome
	began   time.Time
	// heardAt is when the server was last heard of, since began.
	heardAt atomic.Int64
	// beatAt is when this worker last made a heartbeat due, or said Hello, since began.
	beatAt atomic.Int64
	// signal wakes the writer; beat tells it that a heartbeat is due.
	signal chan struct{}
	beat   atomic.Bool
	// leaving: Goodbye was sent, so the end of the stream is no error.
	leaving atomic.Bool
	drain   chan *stepwellv1.Drain
}

// openStream says Hello and waits for Welcome.
func openStream(ctx context.Context, h *host, address string, hello []*stepwellv1.ConnectRequest) (*stream, error) {
	conn, err := dial(address)
	if err != nil {
		return nil, err
	}
	s := &stream{
		host: h, address: address, conn: conn, began: h.now(), signal: make(chan struct{}, 1), drain: make(chan *stepwellv1.Drain, 1),
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	late := time.AfterFunc(welcomeTimeout, func() { s.cancel(fmt.Errorf("no Welcome within %s", welcomeTimeout)) })
	defer late.Stop()
	if err := s.greet(hello); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stream) greet(hello []*stepwellv1.ConnectRequest) (err error) {
	if s.call, err = stepwellv1.NewStepServiceClient(s.conn).Connect(s.ctx); err != nil {
		return s.cause(err)
	}
	for _, frame := range hello {
		s.beatAt.Store(int64(s.age()))
		// A refusal breaks the sending off; the reason is found by reading.
		if err := s.call.Send(frame); err != nil {
			break
		}
	}
	first, err := s.call.Recv()
	if err != nil {
		return s.cause(err)
	}
	if s.welcome = first.GetWelcome(); s.welcome == nil {
		return errors.New("the stream did not begin with Welcome")
	}
	if s.overslept() {
		return errOverslept
	}
	s.hear()
	return nil
}

// cause prefers our own reason to break a call off over what the call says of it.
func (s *stream) cause(err error) error {
	if own := context.Cause(s.ctx); own != nil && !errors.Is(own, context.Canceled) {
		return own
	}
	return err
}

// age is the time since it began, by the clock of this process.
func (s *stream) age() time.Duration { return s.host.now().Sub(s.began) }

func (s *stream) hear() { s.heardAt.Store(int64(s.age())) }

// heard is when the server was last heard of.
func (s *stream) heard() time.Time { return s.began.Add(time.Duration(s.heardAt.Load())) }

// overslept: so long without a heartbeat from here that the runs may be elsewhere, and what came may be older than that.
// It stays so: nothing of the stream is applied any more (H12c).
func (s *stream) overslept() bool {
	lease := time.Duration(s.welcome.GetLeaseMs()) * time.Millisecond
	return lease > 0 && s.age()-time.Duration(s.beatAt.Load()) > lease*leaseShare/10
}

// serve reads and writes until the stream ends, and returns what ended it; nil after Goodbye.
func (s *stream) serve() error {
	var helpers sync.WaitGroup
	wrote := make(chan struct{})
	helpers.Add(2)
	go func() { defer helpers.Done(); defer close(wrote); s.write() }()
	go func() { defer helpers.Done(); s.watch() }()
	go func() {
		<-wrote
		// After Goodbye the server ends the stream; after a failed write only the reader can tell the cause.
		stop := time.AfterFunc(leaveTimeout, func() { s.cancel(errors.New("the stream could not be written")) })
		<-s.ctx.Done()
		stop.Stop()
	}()
	err := s.read()
	s.cancel(context.Canceled)
	helpers.Wait()
	if s.leaving.Load() {
		return nil
	}
	return err
}

// close ends the call without a word: the session goes on elsewhere, or was left by Goodbye.
func (s *stream) close() {
	s.cancel(context.Canceled)
	_ = s.conn.Close() // it can only say that it was closed before
}

// wake lets the writer look what there is to send.
func (s *stream) wake() {
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

func (s *stream) write() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.signal:
		}
		entries, seen := s.host.take(s)
		for _, frame := range pack(entries, s.welcome.GetEpoch()) {
			if s.call.Send(frame) != nil {
				return
			}
			if frame.GetGoodbye() != nil {
				s.leaving.Store(true)
				_ = s.call.CloseSend() // never an error
				return
			}
		}
		if s.beat.Swap(false) && seen.framesRead > 0 && s.call.Send(s.heartbeat(seen)) != nil {
			return
		}
	}
}

func (s *stream) heartbeat(seen digest) *stepwellv1.ConnectRequest {
	return &stepwellv1.ConnectRequest{Frame: &stepwellv1.ConnectRequest_Heartbeat{Heartbeat: &stepwellv1.Heartbeat{
		Epoch: s.welcome.GetEpoch(), Residents: uint32(seen.residents), ResidentHash: seen.hash, FramesRead: seen.framesRead,
	}}}
}

func (s *stream) read() error {
	for {
		frame, err := s.call.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the server ended the stream")
		}
		if err != nil {
			return s.cause(err)
		}
		if s.overslept() {
			return errOverslept
		}
		s.hear()
		// Every frame is passed on, without work if need be: heartbeats count those that were applied.
		s.host.apply(s, frame.GetWork())
		if drain := frame.GetDrain(); drain != nil {
			select {
			case s.drain <- drain:
			default:
			}
		}
	}
}

// watch makes a heartbeat due on the interval, and gives up a stream that fell silent.
func (s *stream) watch() {
	beat := time.Duration(max(s.welcome.GetHeartbeatMs(), 20)) * time.Millisecond
	lease := time.Duration(s.welcome.GetLeaseMs()) * time.Millisecond
	// The server sends something each heartbeat; silence for less than half a lease leaves time to take up the session
	// on another connection.
	quiet := max(3*beat, lease*4/10)
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		}
		now := s.host.now()
		if s.overslept() {
			s.cancel(errOverslept)
			return
		}
		before := s.beatAt.Swap(int64(now.Sub(s.began)))
		s.beat.Store(true)
		s.wake()
		// After a short freeze of our own, what has arrived meanwhile is read first.
		late := now.Sub(s.began)-time.Duration(before) > 2*beat
		if !late && now.Sub(s.heard()) > quiet {
			s.cancel(fmt.Errorf("%w for %s", errSilent, now.Sub(s.heard()).Round(time.Millisecond)))
		}
	}
}
