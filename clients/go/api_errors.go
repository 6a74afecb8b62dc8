// Errors of calls to the server, with the details that it attached to them.

package stepwell

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What errors.Is finds in an APIError, by its code.
var (
	ErrInvalidArgument    = errors.New("the request is wrong")
	ErrNotFound           = errors.New("there is no such thing")
	ErrAlreadyExists      = errors.New("the id is taken by something else")
	ErrFailedPrecondition = errors.New("the state of the thing does not allow it")
	ErrAborted            = errors.New("somebody else was faster")
	ErrResourceExhausted  = errors.New("a limit was reached")
	ErrPermissionDenied   = errors.New("the caller is unknown, or may not do this")
	ErrDeadlineExceeded   = errors.New("the call took longer than allowed; what it asked for may have happened")
	ErrUnavailable        = errors.New("the server cannot be reached")
)

var codeErrors = map[codes.Code]error{
	codes.InvalidArgument: ErrInvalidArgument, codes.OutOfRange: ErrInvalidArgument, codes.NotFound: ErrNotFound,
	codes.AlreadyExists: ErrAlreadyExists, codes.FailedPrecondition: ErrFailedPrecondition, codes.Aborted: ErrAborted,
	codes.ResourceExhausted: ErrResourceExhausted, codes.PermissionDenied: ErrPermissionDenied,
	codes.Unauthenticated: ErrPermissionDenied, codes.DeadlineExceeded: ErrDeadlineExceeded, codes.Unavailable: ErrUnavailable,
}

// FieldViolation is one field of a request that the server refused.
type FieldViolation struct{ Field, Description string }

// APIError is a call that failed.
type APIError struct {
	Code    codes.Code
	Message string
	// Reason is the machine-readable cause in UPPER_SNAKE; empty if the server gave none.
	Reason     string
	Metadata   map[string]string
	Violations []FieldViolation
	// RetryAfter is when trying again can help; zero if the server did not say.
	RetryAfter time.Duration
	cause      error
}

func (e *APIError) Error() string {
	said := e.Reason
	if said == "" {
		said = e.Code.String()
	}
	text := fmt.Sprintf("%s: %s", said, e.Message)
	for _, one := range e.Violations {
		text += fmt.Sprintf("; %s: %s", one.Field, one.Description)
	}
	return text
}

// Is tells its kind by its code; a call that was given up is context.Canceled or context.DeadlineExceeded too.
func (e *APIError) Is(target error) bool {
	switch target {
	case context.Canceled:
		return e.Code == codes.Canceled
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	}
	return codeErrors[e.Code] == target
}

// Unwrap answers the error of gRPC.
func (e *APIError) Unwrap() error { return e.cause }

// Retriable tells whether the same call may succeed later without anybody's doing. A server that stops cancels calls; one
// that was cancelled here is not made again, since its context has ended.
func (e *APIError) Retriable() bool {
	return e.Code == codes.Unavailable || e.Code == codes.Canceled || e.RetryAfter > 0
}

// apiError makes an APIError of what gRPC says; other errors stay themselves.
func apiError(err error) error {
	said, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	made := &APIError{Code: said.Code(), Message: said.Message(), cause: err}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			made.Reason, made.Metadata = detail.GetReason(), detail.GetMetadata()
		case *errdetails.BadRequest:
			for _, one := range detail.GetFieldViolations() {
				made.Violations = append(made.Violations, FieldViolation{one.GetField(), strings.TrimSpace(one.GetDescription())})
			}
		case *errdetails.RetryInfo:
			made.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return made
}
