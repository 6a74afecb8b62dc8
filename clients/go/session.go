// A worker's session: connects for ever, moves between streams, and watches the lease.

package stepwell

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const (
	backoffFirst = 50 * time.Millisecond
	backoffMax   = 5 * time.Second
	// stableAfter is how long a stream must live so that the back-off begins anew.
	stableAfter = 5 * time.Second
)

// transient are the reasons of a hopeless status that are not about the registration; an empty one is not the server's own.
var transient = map[string]bool{"": true, "HELLO_EXPECTED": true, "OUT_OF_ORDER": true, "RESIDENTS_DIFFER": true}

type session struct {
	host      *host
	addresses *addresses
	hello     *stepwellv1.Hello // without residents
	log       *slog.Logger
	// capacity is what the next Hello says.
	capacity atomic.Uint32

	failures int
	mu       sync.Mutex
	id       string
	current  *stream
	lease    time.Duration
	lapsed   bool
}

// served is a stream and what ends it.
type served struct {
	stream *stream
	ended  chan error
}

// run keeps a stream open until one is left by Goodbye, or ctx is done. Its error is an APIError: the server refuses the
// registration or is too old for it, and trying again would not help.
func (s *session) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Add(1)
	go func() { defer watching.Done(); s.watchLease(ctx) }()
	defer watching.Wait()
	defer stop()
	var old *served
	defer func() { s.drop(old) }()
	for {
		next, err := s.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		s.drop(old)
		old = &served{next, make(chan error, 1)}
		go func(one *served) {
			err := one.stream.serve()
			s.host.lost(one.stream) // one that is being left may end before there is another to send to
			one.ended <- err
		}(old)
		err, moves := s.follow(ctx, old)
		if time.Since(next.began) > stableAfter {
			s.failures = 0
		}
		s.addresses.failed(next.address)
		if moves {
			s.backOff(ctx)
			continue // make before break: the next stream opens while this one goes on, if it does
		}
		s.drop(old)
		old = nil
		if err == nil || ctx.Err() != nil {
			return nil
		}
		s.log.Warn("the stream ended", "error", err)
		s.backOff(ctx)
	}
}

// follow waits until a stream ends; moves tells that the server asked to connect elsewhere first.
func (s *session) follow(ctx context.Context, one *served) (err error, moves bool) {
	select {
	case err := <-one.ended:
		return err, false
	case <-ctx.Done():
		return nil, false
	case drain := <-one.stream.drain:
		s.log.Info("the server asks to connect elsewhere", "reason", drain.GetReason())
		select {
		case err := <-one.ended:
			return err, err != nil // the server said that it leaves; nil: this worker said Goodbye
		case <-ctx.Done():
			return nil, false
		case <-time.After(time.Duration(drain.GetReconnectAfterMs()) * time.Millisecond):
			return nil, true
		}
	}
}

func (s *session) drop(one *served) {
	if one != nil {
		one.stream.close()
	}
}

// connect opens a stream, however often that fails.
func (s *session) connect(ctx context.Context) (*stream, error) {
	for {
		id, listed := s.introduce()
		first := proto.CloneOf(s.hello)
		first.SessionId, first.Capacity = id, s.capacity.Load()
		address := s.addresses.next()
		next, err := openStream(ctx, s.host, address, hello(first, listed))
		if err == nil {
			if lacks := lacking(s.hello.GetFunctions(), next.welcome.GetCapabilities()); lacks != "" {
				next.close()
				return nil, &APIError{
					Code: codes.FailedPrecondition, Reason: "CAPABILITY_MISSING",
					Message: fmt.Sprintf("the server at %s is too old: it does not know %s", address, lacks),
				}
			}
			s.took(next, listed)
			return next, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var refusal *APIError
		if errors.As(apiError(err), &refusal) && hopeless(refusal) {
			return nil, refusal
		}
		if s.failures&(s.failures-1) == 0 { // the 1st, 2nd, 3rd, 5th, 9th …
			s.log.Warn("no connection", "address", address, "attempt", s.failures+1, "error", err)
		}
		s.addresses.failed(address)
		s.backOff(ctx)
	}
}

func hopeless(refusal *APIError) bool {
	return (refusal.Code == codes.InvalidArgument || refusal.Code == codes.FailedPrecondition) && !transient[refusal.Reason]
}

// introduce is the session to take up, with the residents that Hello names.
func (s *session) introduce() (string, []*stepwellv1.Resident) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id == "" || s.lapsed {
		return s.id, nil
	}
	return s.id, s.host.listing()
}

// took notes the stream that had its Welcome.
func (s *session) took(next *stream, listed []*stepwellv1.Resident) {
	welcome := next.welcome
	s.mu.Lock()
	s.id, s.current, s.lapsed = welcome.GetSessionId(), next, false
	s.lease = time.Duration(welcome.GetLeaseMs()) * time.Millisecond
	s.mu.Unlock()
	s.log.Info("connected", "address", next.address, "session", welcome.GetSessionId(), "epoch", welcome.GetEpoch())
	s.host.opened(next, welcome, listed)
}

func (s *session) backOff(ctx context.Context) {
	ceiling := min(backoffMax, backoffFirst<<min(s.failures, 10))
	s.failures++
	select {
	case <-time.After(rand.N(ceiling)):
	case <-ctx.Done():
	}
}

// watchLease gives everything up once the server was silent for most of a lease.
func (s *session) watchLease(ctx context.Context) {
	pause := 100 * time.Millisecond
	for before := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		now := time.Now()
		late := now.Sub(before) > 4*pause // after a freeze of our own the stream judges first
		before = now
		s.mu.Lock()
		if s.lease > 0 {
			pause = max(s.lease/20, 10*time.Millisecond)
		}
		silent := time.Duration(0)
		if s.current != nil {
			silent = now.Sub(s.current.heard())
		}
		over := s.lease > 0 && !s.lapsed && !late && silent > s.lease*leaseShare/10
		if over {
			s.lapsed = true
		}
		s.mu.Unlock()
		if over {
			s.log.Error("nothing heard from the server for most of a lease: stopping all bodies", "silent", silent)
			s.host.lapse()
		}
	}
}
