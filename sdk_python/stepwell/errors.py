"""The exception tree, and failures: one shape for errors in every language.

StepwellError
├── UsageError               the library was called wrongly
│   ├── RegistrationError    a function was declared wrongly
│   └── OutsideStepError     I/O, or a wait for something foreign, outside a step
├── SerializationError       a value has no JSON form, or JSON does not fit a type
├── LimitError               a size or count the server does not accept
├── NondeterminismError      the code no longer fits its journal
├── ProtocolError            the peer broke the protocol
├── NonRetriableError        raised by user code: do not try again
├── RetryAfterError          raised by user code: try again after this long
└── StepError                a step failed for good
    ├── StepTimeoutError     its body took too long
    └── InvokeError          an invoked function gave no output
        ├── RunFailedError
        ├── RunCancelledError
        ├── RunTimedOutError
        └── InvokeTimeoutError  (also a StepTimeoutError)

Interrupted and Fenced are BaseExceptions, so that `except Exception` cannot swallow them.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from stepwell.duration import Duration, DurationError, to_ms
from stepwell.v1 import common_pb2

if TYPE_CHECKING:
    from stepwell.v1.common_pb2 import Failure

CAUSES_MAX = 10
FAILURE_BYTES_DEFAULT = 64 * 1024


class StepwellError(Exception):
    """Whatever Stepwell raises."""

    reason = ""
    non_retriable = False


class UsageError(StepwellError):
    """The library was called wrongly; trying again cannot help."""

    reason = "BAD_USAGE"
    non_retriable = True


class RegistrationError(UsageError):
    """A function was declared wrongly. Raised at the decorator."""

    reason = "BAD_REGISTRATION"


class OutsideStepError(UsageError):
    """The code does I/O, or waits for something foreign, outside a step."""

    reason = "OUTSIDE_STEP"


class SerializationError(StepwellError):
    """A value has no JSON form, or JSON does not fit the type that was asked for."""

    reason = "NOT_SERIALIZABLE"
    non_retriable = True


class LimitError(StepwellError):
    """A size or count the server does not accept."""

    reason = "TOO_LARGE"
    non_retriable = True


class NondeterminismError(StepwellError):
    """The code asks for something else than its journal holds."""

    reason = "NONDETERMINISTIC"
    non_retriable = True


class ProtocolError(StepwellError):
    """The peer broke the protocol."""

    reason = "PROTOCOL"


class NonRetriableError(StepwellError):
    """Raise it in a body or a function to fail at once, without another attempt."""

    non_retriable = True


class RetryAfterError(StepwellError):
    """Raise it in a body or a function to say when the next attempt makes sense."""

    def __init__(self, delay: Duration, message: str = "") -> None:
        try:
            self.delay_ms = to_ms(delay)
        except DurationError as error:
            raise UsageError(f"RetryAfterError: {error}") from None
        super().__init__(message or f"retry after {self.delay_ms} ms")


class StepError(StepwellError):
    """A step failed for good. `failure` is what its last attempt raised, in whatever language."""

    def __init__(self, message: str, *, key: str = "", failure: Failure | None = None, attempts: int = 0) -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key
        self.failure = failure
        self.attempts = attempts
        self.type = failure.type if failure is not None else type(self).__name__
        self.message = failure.message if failure is not None else message


class StepTimeoutError(StepError):
    """A body took longer than its time-out."""

    reason = "TIMEOUT"


class InvokeError(StepError):
    """An invoked function gave no output."""

    reason = "INVOKE_FAILED"


class RunFailedError(InvokeError):
    """The run failed."""

    reason = "RUN_FAILED"


class RunCancelledError(InvokeError):
    """The run was cancelled."""

    reason = "CANCELLED"


class RunTimedOutError(InvokeError):
    """A time-out of the invoked function was over before the run had started or ended."""

    reason = "TIMED_OUT"


class InvokeTimeoutError(InvokeError, StepTimeoutError):
    """The invoked function took longer than the time-out of the call."""

    reason = "TIMEOUT"


class Interrupted(BaseException):
    """The worker stops a body: its run was cancelled, or its key abandoned, or the run is no longer the worker's."""


class Fenced(BaseException):
    """The run is no longer this worker's: its code is unwound, and nothing it does reaches the server."""


def to_failure(error: BaseException, max_bytes: int = 0) -> Failure:
    """The failure that describes an error, no larger than max_bytes (0: the default limit of 64 KiB)."""
    budget = max_bytes or FAILURE_BYTES_DEFAULT
    failure = _describe(error, CAUSES_MAX)
    if failure.ByteSize() > budget:
        _shrink(failure, budget)
    return failure


def _describe(error: BaseException, depth: int) -> Failure:
    failure = common_pb2.Failure(
        type=type(error).__name__,
        message=clean(_text(error)),
        stack=clean(_stack(error)),
        non_retriable=isinstance(error, StepwellError) and error.non_retriable,
        reason=error.reason if isinstance(error, StepwellError) else "",
    )
    if depth == 0:
        return failure
    if isinstance(error, StepError) and error.failure is not None:
        failure.cause.CopyFrom(error.failure)
        return failure
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and cause is not error:
        failure.cause.CopyFrom(_describe(cause, depth - 1))
    return failure


def _text(error: BaseException) -> str:
    try:
        if isinstance(error, StepError) and error.failure is None:
            return error.message  # whoever gets the failure knows the key
        return str(error)
    except Exception as broken:
        return f"<{type(error).__name__} whose text raised {type(broken).__name__}>"


def _stack(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__, limit=-30)
    return "".join(traceback.format_list(frames))


def clean(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _shrink(failure: Failure, budget: int) -> None:
    """Cuts stacks, then causes, then the message, until the failure fits."""
    node = failure
    while True:
        node.stack = ""
        if not node.HasField("cause"):
            break
        node = node.cause
    if failure.ByteSize() > budget:
        failure.ClearField("cause")
    if failure.ByteSize() > budget:
        failure.ClearField("details")
    if failure.ByteSize() > budget:
        kept = failure.message.encode()[: max(0, budget // 2)]
        failure.message = kept.decode("utf-8", "ignore") + " … (cut)"
    if failure.ByteSize() > budget:
        failure.type = failure.type[:100]
        failure.reason = failure.reason[:100]
        failure.message = ""


def retry_after_ms(error: BaseException) -> int | None:
    """When the error itself wants to be tried again."""
    return error.delay_ms if isinstance(error, RetryAfterError) else None


def step_error(failure: Failure, key: str, attempts: int) -> StepError:
    """The exception that a failed body raises in the function."""
    kind = StepTimeoutError if failure.reason == "TIMEOUT" else StepError
    return kind(describe(innermost(failure)), key=key, failure=failure, attempts=attempts)


_INVOKE_ERRORS: dict[str, type[InvokeError]] = {
    "RUN_FAILED": RunFailedError,
    "CANCELLED": RunCancelledError,
    "TIMED_OUT": RunTimedOutError,
    "TIMEOUT": InvokeTimeoutError,
}


def invoke_error(failure: Failure, key: str, attempts: int) -> InvokeError:
    """The exception that an invoked run's failure raises in its parent."""
    kind = _INVOKE_ERRORS.get(failure.reason, InvokeError)
    return kind(describe(innermost(failure)), key=key, failure=failure, attempts=attempts)


# Errors that only say which step or run another error came from.
_CARRIERS = frozenset(kind.__name__ for kind in (StepError, StepTimeoutError, InvokeError, *_INVOKE_ERRORS.values()))


def innermost(failure: Failure) -> Failure:
    """What happened first, beneath the steps and invokes that only passed it on."""
    if failure.type in _CARRIERS and failure.HasField("cause"):
        first = innermost(failure.cause)
        if failure.message.endswith(describe(first)):
            return first
    return failure


def describe(failure: Failure) -> str:
    """One line for people."""
    return f"{failure.type}: {failure.message}" if failure.message else failure.type or "failed"
