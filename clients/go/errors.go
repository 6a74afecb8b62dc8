// The errors of this package, and how errors.Is and errors.As tell them apart.
//
//	*Error                 the library has something against a call
//	  ErrUsage             it was called wrongly
//	    ErrRegistration    a function was declared wrongly
//	    ErrOutsideStep     I/O, or a wait for something foreign, outside a step
//	  ErrSerialization     a value has no JSON form, or JSON does not fit a type
//	  ErrLimit             a size or count that the server does not accept
//	*StepError             a step failed for good
//	  ErrTimeout           it took longer than its own Timeout: its body, or the run that it invoked
//	  ErrInvoke            an invoked function gave no output
//	    ErrRunFailed, ErrRunCancelled, ErrRunTimedOut (a time-out of its function), and ErrTimeout
//	*CancelledError        ErrCancelled: the call was given up, with its run or because its branch is no longer needed
//	*NonRetriableError     made by user code: do not try again
//	*RetryAfterError       made by user code: try again after this long
//	*PanicError            user code panicked
//	*APIError              a call of a Client failed; see api_errors.go

package stepwell

import (
	"context"
	"errors"
	"fmt"
	"time"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// What errors.Is finds in the errors of this package.
var (
	ErrUsage         = errors.New("the library was called wrongly")
	ErrRegistration  = errors.New("a function was declared wrongly")
	ErrOutsideStep   = errors.New("I/O, or a wait for something foreign, outside a step")
	ErrSerialization = errors.New("a value has no JSON form, or JSON does not fit a type")
	ErrLimit         = errors.New("a size or count that the server does not accept")
	ErrTimeout       = errors.New("it took too long")
	ErrInvoke        = errors.New("an invoked function gave no output")
	ErrRunFailed     = errors.New("the run failed")
	ErrRunCancelled  = errors.New("the run was cancelled")
	ErrRunTimedOut   = errors.New("a time-out of the run's function was over")
)

// ErrCancelled is what a waiting call returns when its run is cancelled or out of time, or when a Group or Race no longer
// needs its branch. It is told once: further steps run, to clean up. It is context.Canceled too.
var ErrCancelled error = &CancelledError{}

// CancelledError is an ErrCancelled with what is known of its cause.
type CancelledError struct {
	// Message says who or what ends the run; empty if nobody said, and where only a branch was given up.
	Message string
}

func (e *CancelledError) Error() string {
	if e.Message == "" {
		return "the call was given up"
	}
	return "the call was given up: " + e.Message
}

// Is tells its kind.
func (e *CancelledError) Is(target error) bool {
	return target == ErrCancelled || target == context.Canceled
}

// cancelledBy is what the code of a run is told that ends with this failure.
func cancelledBy(failure *stepwellv1.Failure) *CancelledError {
	return &CancelledError{failure.GetMessage()}
}

// The reasons of Error: what the server and other languages see of them.
const (
	reasonUsage         = "BAD_USAGE"
	reasonRegistration  = "BAD_REGISTRATION"
	reasonOutsideStep   = "OUTSIDE_STEP"
	reasonSerialization = "NOT_SERIALIZABLE"
	reasonLimit         = "TOO_LARGE"
)

// Error is what the library has against a call. Trying again cannot help.
type Error struct {
	// Reason is a machine-readable cause in UPPER_SNAKE.
	Reason  string
	Message string
	cause   error
}

func (e *Error) Error() string { return e.Message }

// Unwrap answers what led to it, if something did.
func (e *Error) Unwrap() error { return e.cause }

// Is tells its kind.
func (e *Error) Is(target error) bool {
	switch e.Reason {
	case reasonUsage:
		return target == ErrUsage
	case reasonRegistration:
		return target == ErrRegistration || target == ErrUsage
	case reasonOutsideStep:
		return target == ErrOutsideStep || target == ErrUsage
	case reasonSerialization:
		return target == ErrSerialization
	case reasonLimit:
		return target == ErrLimit
	}
	return false
}

// name of the kind, the same in every SDK.
func (e *Error) name() string {
	switch e.Reason {
	case reasonUsage:
		return "UsageError"
	case reasonRegistration:
		return "RegistrationError"
	case reasonOutsideStep:
		return "OutsideStepError"
	case reasonSerialization:
		return "SerializationError"
	case reasonLimit:
		return "LimitError"
	}
	return "StepwellError"
}

func usageError(format string, args ...any) *Error {
	return &Error{Reason: reasonUsage, Message: fmt.Sprintf(format, args...)}
}

func limitError(format string, args ...any) *Error {
	return &Error{Reason: reasonLimit, Message: fmt.Sprintf(format, args...)}
}

func outsideStepError(format string, args ...any) *Error {
	return &Error{Reason: reasonOutsideStep, Message: fmt.Sprintf(format, args...)}
}

// NonRetriableError says that trying again is no use.
type NonRetriableError struct{ Err error }

// NonRetriable marks an error of a body or a function: it fails at once, without another attempt.
func NonRetriable(err error) error { return &NonRetriableError{err} }

func (e *NonRetriableError) Error() string { return e.Err.Error() }

// Unwrap answers the error that was marked.
func (e *NonRetriableError) Unwrap() error { return e.Err }

// RetryAfterError says when the next attempt makes sense.
type RetryAfterError struct {
	Err   error
	Delay time.Duration
}

// RetryAfter marks an error of a body or a function: the next attempt begins after this delay.
func RetryAfter(delay time.Duration, err error) error { return &RetryAfterError{err, delay} }

func (e *RetryAfterError) Error() string { return e.Err.Error() }

// Unwrap answers the error that was marked.
func (e *RetryAfterError) Unwrap() error { return e.Err }

// PanicError is a panic of a body or a function. It is retried like any other error.
type PanicError struct {
	Value any
	Stack string
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap answers the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// The reasons of StepError that the library tells apart.
const (
	reasonTimeout      = "TIMEOUT"
	reasonInvoke       = "INVOKE_FAILED"
	reasonRunFailed    = "RUN_FAILED"
	reasonRunCancelled = "CANCELLED"
	reasonRunTimedOut  = "TIMED_OUT"
)

// StepError is a step, or a run, that failed for good.
type StepError struct {
	// Key of the step; empty where a Client waited for a run.
	Key string
	// Type and Message of what its last attempt, or the invoked run, ended with, in whatever language.
	Type    string
	Message string
	// Attempts is how many there were.
	Attempts int
	// Reason is TIMEOUT, or for invokes RUN_FAILED, CANCELLED, TIMED_OUT, TIMEOUT or INVOKE_FAILED; else empty.
	Reason  string
	said    string
	invoke  bool
	failure *stepwellv1.Failure
}

func (e *StepError) Error() string {
	if e.Key == "" {
		return e.said
	}
	return e.Key + ": " + e.said
}

// Failure is what its last attempt ended with; nil if there was none.
func (e *StepError) Failure() *Failure { return failureFrom(e.failure) }

// Is tells its kind.
func (e *StepError) Is(target error) bool {
	switch target {
	case ErrInvoke:
		return e.invoke
	case ErrTimeout:
		return e.Reason == reasonTimeout
	case ErrRunFailed:
		return e.invoke && e.Reason == reasonRunFailed
	case ErrRunCancelled:
		return e.invoke && e.Reason == reasonRunCancelled
	case ErrRunTimedOut:
		return e.invoke && e.Reason == reasonRunTimedOut
	}
	return false
}

// name of the kind, the same in every SDK.
func (e *StepError) name() string {
	switch {
	case e.invoke && e.Reason == reasonRunFailed:
		return "RunFailedError"
	case e.invoke && e.Reason == reasonRunCancelled:
		return "RunCancelledError"
	case e.invoke && e.Reason == reasonRunTimedOut:
		return "RunTimedOutError"
	case e.invoke && e.Reason == reasonTimeout:
		return "InvokeTimeoutError"
	case e.invoke:
		return "InvokeError"
	case e.Reason == reasonTimeout:
		return "StepTimeoutError"
	}
	return "StepError"
}

// timeoutError is that of a body which took too long.
func timeoutError(key, said string) *StepError {
	return &StepError{Key: key, Type: "StepTimeoutError", Message: said, Reason: reasonTimeout, said: said}
}

// stepError is what a failed body means to the function.
func stepError(failure *stepwellv1.Failure, key string, attempts uint32) *StepError {
	err := &StepError{
		Key: key, Type: failure.GetType(), Message: failure.GetMessage(), Attempts: int(attempts),
		said: describe(innermost(failure)), failure: failure,
	}
	if failure.GetReason() == reasonTimeout {
		err.Reason = reasonTimeout
	}
	return err
}

// invokeError is what an invoked run's failure means to its parent.
func invokeError(failure *stepwellv1.Failure, key string, attempts uint32) *StepError {
	err := stepError(failure, key, attempts)
	err.invoke = true
	switch failure.GetReason() {
	case reasonRunFailed, reasonRunCancelled, reasonRunTimedOut, reasonTimeout:
		err.Reason = failure.GetReason()
	default:
		err.Reason = reasonInvoke
	}
	return err
}
