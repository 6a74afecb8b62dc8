// Workers that cannot serve: what the server refuses, and what it lacks.

package stepwell_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sw "stepwell.example/stepwell"
	stepwellv1 "stepwell.example/stepwell/v1"
)

func TestAWrongRegistrationEndsTheWorker(t *testing.T) {
	s := newFakeServer(t)
	s.greet = func(*link) (*stepwellv1.Welcome, error) {
		refusal, err := status.New(codes.InvalidArgument, "no").WithDetails(
			&errdetails.ErrorInfo{Reason: "BAD_EXPRESSION", Domain: "stepwell"},
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "condition", Description: "no CEL"}}},
		)
		if err != nil {
			return nil, err
		}
		return nil, refusal.Err()
	}
	_, ended := working(t, s, appOf(newHung()))
	err := <-ended
	var refused *sw.APIError
	if !errors.As(err, &refused) || refused.Reason != "BAD_EXPRESSION" || !errors.Is(err, sw.ErrInvalidArgument) ||
		len(refused.Violations) != 1 || !strings.Contains(err.Error(), "condition: no CEL") {
		t.Fatal(err)
	}
}

func TestAServerWithoutTimeOutsIsRefusedByAFunctionThatHasOne(t *testing.T) {
	code := func(sw.Context, sw.Event[any]) (any, error) { return nil, nil }
	for name, option := range map[string]sw.FunctionOption{"timeout": sw.Timeout(time.Hour), "start": sw.StartTimeout(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t)
			_, ended := working(t, s, sw.NewApp("test", sw.Function("plain", sw.On(), code), sw.Function("timed", sw.On(), code, option)))
			l := s.link()
			spec := l.hello[0].Functions[1]
			if !slices.Contains(l.hello[0].Capabilities, "timeouts") || spec.TimeoutMs+spec.StartTimeoutMs != 3_600_000 {
				t.Fatal(l.hello)
			}
			err := <-ended
			var refused *sw.APIError
			if !errors.As(err, &refused) || refused.Reason != "CAPABILITY_MISSING" || !strings.HasSuffix(refused.Message, "timeouts of functions, which timed has") {
				t.Fatal(err)
			}
			able := welcome(1)
			able.Capabilities = []string{"later", "timeouts"}
			s.change(func() { s.greet = func(*link) (*stepwellv1.Welcome, error) { return able, nil } })
			working(t, s, sw.NewApp("test", sw.Function("timed", sw.On(), code, option)))
			l = s.link()
			l.assign("run_1", "timed", 1)
			l.waitFor(has((*stepwellv1.Commands).GetCompletes))
		})
	}
}

func TestAnAppWhoseRegistrationIsTooLargeIsNotServed(t *testing.T) {
	code := func(sw.Context, sw.Event[any]) (any, error) { return nil, nil }
	var many []sw.Declared
	for n := range 2000 {
		many = append(many, sw.Function(fmt.Sprint("f", n), sw.On("a").If("event.data == '"+strings.Repeat("x", 2000)+"'"), code))
	}
	if err := sw.NewApp("test", many...).Serve(context.Background()); !errors.Is(err, sw.ErrLimit) {
		t.Fatal(err)
	}
}
