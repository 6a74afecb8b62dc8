// Failures: one shape for the errors of every language.

package stepwell

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"google.golang.org/protobuf/proto"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const (
	causesMax            = 10
	failureBytesFallback = 64 * 1024
)

// toFailure describes an error, in no more than maxBytes (0: 64 KiB).
func toFailure(err error, maxBytes uint32) *stepwellv1.Failure {
	budget := int(maxBytes)
	if budget == 0 {
		budget = failureBytesFallback
	}
	failure := failureOf(err, causesMax)
	if proto.Size(failure) > budget {
		shrink(failure, budget)
	}
	return failure
}

func failureOf(err error, depth int) *stepwellv1.Failure {
	inner, name := named(err)
	failure := &stepwellv1.Failure{Type: name, Message: clean(textOf(err)), NonRetriable: isNonRetriable(err)}
	cause := errors.Unwrap(inner)
	switch e := inner.(type) {
	case *Error:
		failure.Reason = e.Reason
	case *PanicError:
		failure.Stack = clean(e.Stack)
	case *StepError:
		failure.Reason = e.Reason
		if e.failure == nil {
			failure.Message = clean(e.said) // whoever gets the failure knows the key
		} else if depth > 0 {
			failure.Cause = proto.CloneOf(e.failure)
		}
		return failure
	}
	if cause != nil && depth > 0 {
		failure.Cause = failureOf(cause, depth-1)
	}
	return failure
}

// textOf is what an error says, even one whose own method panics.
func textOf(err error) (text string) {
	defer func() {
		if value := recover(); value != nil {
			text = fmt.Sprintf("a %T whose text panicked: %v", err, value)
		}
	}()
	return err.Error()
}

// named is the outermost error whose type says something, with that type's name. Marks, and what errors.New and
// fmt.Errorf make, say nothing by themselves.
func named(err error) (inner error, name string) {
	for {
		var next error
		switch e := err.(type) {
		case *NonRetriableError:
			name, next = first(name, "NonRetriableError"), e.Err
		case *RetryAfterError:
			name, next = first(name, "RetryAfterError"), e.Err
		case *Error:
			return err, e.name()
		case *StepError:
			return err, e.name()
		case *CancelledError:
			return err, "Cancelled"
		default:
			typ := typeOf(err)
			if typ.PkgPath() != "errors" && typ.PkgPath() != "fmt" {
				return err, typeName(typ)
			}
			next = errors.Unwrap(err)
			if several, ok := err.(interface{ Unwrap() []error }); ok && len(several.Unwrap()) > 0 {
				next = several.Unwrap()[0]
			}
		}
		if next == nil {
			return err, first(name, "error")
		}
		err = next
	}
}

func first(name, otherwise string) string {
	if name != "" {
		return name
	}
	return otherwise
}

func typeOf(err error) reflect.Type {
	typ := reflect.TypeOf(err)
	if typ.Kind() == reflect.Pointer {
		return typ.Elem()
	}
	return typ
}

// typeName is without the package, unless it would then be only "Error".
func typeName(typ reflect.Type) string {
	if name := typ.Name(); name != "" && name != "Error" {
		return name
	}
	return typ.String()
}

func isStepError(err error) bool {
	var step *StepError
	return errors.As(err, &step)
}

func isNonRetriable(err error) bool {
	var mark *NonRetriableError
	var ours *Error
	return errors.As(err, &mark) || errors.As(err, &ours)
}

// retryAfterMs is when the error itself wants to be tried again; nil if it does not say.
func retryAfterMs(err error) *uint64 {
	var mark *RetryAfterError
	if !errors.As(err, &mark) {
		return nil
	}
	ms := uint64(toMs(min(max(mark.Delay, 0), durationMax)))
	return &ms
}

// clean makes text that UTF-8 can hold.
func clean(text string) string { return strings.ToValidUTF8(text, "�") }

// shrink cuts stacks, then causes, then the message, until the failure fits.
func shrink(failure *stepwellv1.Failure, budget int) {
	for node := failure; node != nil; node = node.Cause {
		node.Stack = ""
	}
	if proto.Size(failure) > budget {
		failure.Cause = nil
	}
	if proto.Size(failure) > budget {
		failure.Details = nil
	}
	if proto.Size(failure) > budget {
		failure.Message = strings.ToValidUTF8(failure.Message[:min(len(failure.Message), budget/2)], "") + " … (cut)"
	}
	if proto.Size(failure) > budget {
		failure.Type = strings.ToValidUTF8(failure.Type[:min(len(failure.Type), 100)], "")
		failure.Message = ""
	}
}

// carriers only say which step or run another error came from.
var carriers = map[string]bool{
	"StepError": true, "StepTimeoutError": true, "InvokeError": true, "RunFailedError": true,
	"RunCancelledError": true, "RunTimedOutError": true, "InvokeTimeoutError": true,
}

// innermost is what happened first, beneath the steps and invokes that only passed it on.
func innermost(failure *stepwellv1.Failure) *stepwellv1.Failure {
	if carriers[failure.GetType()] && failure.GetCause() != nil {
		if cause := innermost(failure.Cause); strings.HasSuffix(failure.Message, describe(cause)) {
			return cause
		}
	}
	return failure
}

// describe is one line for people.
func describe(failure *stepwellv1.Failure) string {
	switch {
	case failure.GetMessage() == "" && failure.GetType() == "":
		return "failed"
	case failure.GetMessage() == "":
		return failure.GetType()
	}
	return failure.GetType() + ": " + failure.GetMessage()
}
